//! Decides what to do when an engine comes close to its memory limit. Pure; `memory_sampler.rs` samples and acts.

use serde::Deserialize;

use crate::memory::plan::{WINDOW_UNIT, usable};
use crate::memory::{ContextWindow, smallest_window};

/// Of a hundred parts of the limit, those below which memory is ample again.
const AMPLE_PERCENT: u64 = 85;

/// How far apart two points have to be before a line is drawn through them, in tokens: caches grow by steps of 256.
const FAR_APART: u64 = 4_096;

/// Sample of the engine's memory (`engine/patches/memory.py`), in bytes unless a field says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Sample {
    /// Memory that MLX holds now.
    pub held: u64,
    /// The most that it held since it was last asked.
    #[serde(default)]
    pub peak: u64,
    /// Memory that it held before the first request.
    #[serde(default)]
    pub base: u64,
    /// The most that a step ever took beyond what was held before it.
    #[serde(default)]
    pub rise: u64,
    /// Entries of the prefix cache that the engine has dropped by itself for memory's sake.
    #[serde(default)]
    pub dropped: u64,
    /// The shortest conversation of which no entry could be made for want of memory, in tokens. 0: none.
    #[serde(default)]
    pub refused_tokens: u64,
    /// Memory with its copies and without any other entry.
    #[serde(default)]
    pub refused_bytes: u64,
    #[serde(default)]
    pub prefix_cache: u64,
    /// The longest conversation that is being computed, in tokens. 0: none, or not known.
    #[serde(default)]
    pub tokens: u64,
    /// Its reply is being written: all of its tokens are held.
    #[serde(default)]
    pub writing: bool,
}

/// Decision about a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Nothing,
    /// Clear the prefix cache.
    Clear,
    /// Let no longer prompts in than this, in tokens.
    Narrow(u64),
}

/// An engine's memory, for as long as the engine lives.
#[derive(Debug)]
pub struct MemoryWatch {
    /// In bytes.
    limit: u64,
    /// In tokens.
    window: u64,
    /// The smallest window that holds a session, in tokens.
    smallest: u64,
    /// The prefix cache was cleared since memory was last ample.
    cleared: bool,
    /// The window was narrowed without knowing by how much, since memory was last ample.
    guessed: bool,
    /// The last thing done was to clear the prefix cache: the peak is one from before.
    peak_is_old: bool,
    /// The shortest conversation that was seen whole: its tokens, and what was held for it.
    shortest: Option<(u64, u64)>,
}

impl MemoryWatch {
    /// `limit`: in bytes.
    pub fn new(limit: u64, window: ContextWindow) -> Self {
        Self {
            limit,
            window: window.tokens,
            smallest: smallest_window(window.output).min(window.tokens),
            cleared: false,
            guessed: false,
            peak_is_old: false,
            shortest: None,
        }
    }

    /// Decides about a sample. The window only becomes narrower.
    pub fn see(&mut self, sample: &Sample) -> Decision {
        let short = self.short();
        if sample.base >= short {
            // The weights alone take it all: nothing that could be done would help.
            return Decision::Nothing;
        }
        let most = if std::mem::take(&mut self.peak_is_old) {
            sample.held
        } else {
            sample.held.max(sample.peak)
        };
        if most <= short {
            if most < self.limit / 100 * AMPLE_PERCENT {
                self.cleared = false;
                self.guessed = false;
            }
            let fits = [self.foreseen(sample), self.keepable(sample)];
            return match fits.into_iter().flatten().min() {
                Some(fits) => self.narrow(fits),
                None => Decision::Nothing,
            };
        }
        if !self.cleared && sample.prefix_cache > 0 {
            self.cleared = true;
            self.peak_is_old = true;
            return Decision::Clear;
        }
        match sample.tokens {
            0 if std::mem::replace(&mut self.guessed, true) => Decision::Nothing,
            0 => self.narrow(self.window / 4 * 3),
            tokens => {
                // As if all that is held beside the weights grew with the conversation.
                let (room, taken) = (short - sample.base, most - sample.base);
                self.narrow(scaled(tokens, room, taken))
            }
        }
    }

    /// The window that fits, if this one will not: what is kept of a conversation grows evenly with its length.
    fn foreseen(&mut self, sample: &Sample) -> Option<u64> {
        if !sample.writing || sample.tokens == 0 {
            return None;
        }
        // Without what can be dropped.
        let kept = sample.held.saturating_sub(sample.prefix_cache);
        let (tokens, first) = match self.shortest {
            Some((tokens, kept)) if tokens <= sample.tokens => (tokens, kept),
            _ => *self.shortest.insert((sample.tokens, kept)),
        };
        let (more_tokens, more) = (sample.tokens - tokens, kept.saturating_sub(first));
        if more_tokens < FAR_APART || more == 0 {
            return None;
        }
        let room = self.limit.saturating_sub(kept + sample.rise);
        Some(sample.tokens + scaled(more_tokens, room, more))
    }

    /// The window of which entries can be made, if that is known: without one, a turn computes everything again.
    fn keepable(&self, sample: &Sample) -> Option<u64> {
        let room = self.short() - sample.base;
        let needed = sample.refused_bytes.saturating_sub(sample.base);
        (sample.refused_tokens > 0).then(|| scaled(sample.refused_tokens, room, needed))
    }

    fn narrow(&mut self, fits: u64) -> Decision {
        let window = (fits / WINDOW_UNIT * WINDOW_UNIT).max(self.smallest);
        if window >= self.window {
            return Decision::Nothing;
        }
        self.window = window;
        Decision::Narrow(window)
    }

    /// Above this memory is short, in bytes. The plan shares out as much, so that a run that goes as planned is left alone, and the engine's side
    /// has the same bound (`engine/memory.py`).
    fn short(&self) -> u64 {
        usable(self.limit)
    }
}

/// `tokens` times `part` over `whole`.
fn scaled(tokens: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(tokens) * u128::from(part);
    u64::try_from(product / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// 10 GB, a window of 65,536 tokens, replies of 8,192: the smallest is 29,384.
    fn window(tokens: u64) -> ContextWindow {
        let output = 8_192;
        ContextWindow { tokens, output }
    }

    fn watch() -> MemoryWatch {
        MemoryWatch::new(10_000 * MB, window(65_536))
    }

    fn holding(megabytes: u64) -> Sample {
        Sample {
            held: megabytes * MB,
            base: 4_000 * MB,
            ..Sample::default()
        }
    }

    /// A reply is being written in a conversation of this length.
    fn writing(tokens: u64, megabytes: u64) -> Sample {
        Sample {
            tokens,
            writing: true,
            ..holding(megabytes)
        }
    }

    fn with_cache(megabytes: u64, sample: Sample) -> Sample {
        Sample {
            prefix_cache: megabytes * MB,
            ..sample
        }
    }

    #[test]
    fn a_run_that_goes_as_planned_is_left_alone() {
        let mut watch = watch();
        for sample in [
            holding(4_000),
            writing(60_000, 9_000),
            with_cache(2_000, writing(60_000, 9_500)),
        ] {
            assert_eq!(watch.see(&sample), Decision::Nothing, "{sample:?}");
        }
    }

    #[test]
    fn the_prefix_cache_goes_first_and_then_the_window_narrows() {
        let mut watch = watch();
        let sample = with_cache(1_000, writing(55_000, 9_600));
        assert_eq!(watch.see(&sample), Decision::Clear);
        // 55,000 tokens take 5.6 GB, so 5.5 GB hold 54,017.
        assert_eq!(watch.see(&writing(55_000, 9_600)), Decision::Narrow(53_248));
        // The same request goes on, and has its say no more than once.
        assert_eq!(watch.see(&writing(55_100, 9_610)), Decision::Nothing);
        // Not cleared a second time before memory was ample.
        let sample = with_cache(500, writing(40_000, 9_600));
        assert_eq!(watch.see(&sample), Decision::Narrow(38_912));
    }

    #[test]
    fn a_peak_counts_unless_it_is_from_before_the_cache_was_cleared() {
        let mut watch = watch();
        let peak = |megabytes: u64, sample: Sample| Sample {
            peak: megabytes * MB,
            ..sample
        };
        let sample = with_cache(1_000, peak(9_800, writing(50_000, 8_000)));
        assert_eq!(watch.see(&sample), Decision::Clear);
        let sample = peak(9_800, writing(50_000, 8_800));
        assert_eq!(watch.see(&sample), Decision::Nothing);
        assert!(matches!(watch.see(&sample), Decision::Narrow(_)));
    }

    #[test]
    fn once_memory_is_ample_the_cache_can_be_cleared_again() {
        let mut watch = watch();
        let short = with_cache(1_000, writing(60_000, 9_600));
        assert_eq!(watch.see(&short), Decision::Clear);
        // Between the two bounds nothing changes.
        assert_eq!(watch.see(&holding(9_000)), Decision::Nothing);
        assert!(matches!(watch.see(&short), Decision::Narrow(_)));
        assert_eq!(watch.see(&holding(8_000)), Decision::Nothing);
        assert_eq!(watch.see(&short), Decision::Clear);
    }

    #[test]
    fn what_will_not_fit_is_seen_from_how_it_grows() {
        let mut watch = watch();
        // 100 kB for each token: at 65,536 it is 5 + 5.5 GB.
        assert_eq!(watch.see(&writing(10_000, 5_000)), Decision::Nothing);
        assert_eq!(watch.see(&writing(12_000, 5_200)), Decision::Nothing);
        let sample = Sample {
            rise: 1_000 * MB,
            ..writing(20_000, 6_000)
        };
        // 10 GB less 6 and 1: 30,000 tokens more.
        assert_eq!(watch.see(&sample), Decision::Narrow(49_152));
        assert_eq!(watch.see(&sample), Decision::Nothing);
    }

    #[test]
    fn what_can_be_dropped_and_what_is_half_read_foretells_nothing() {
        let mut watch = watch();
        assert_eq!(watch.see(&writing(10_000, 5_000)), Decision::Nothing);
        let reading = Sample {
            writing: false,
            ..writing(20_000, 8_000)
        };
        assert_eq!(watch.see(&reading), Decision::Nothing);
        let sample = with_cache(2_700, writing(20_000, 8_000));
        assert_eq!(watch.see(&sample), Decision::Nothing);
        // Shorter than the first, after a compaction.
        assert_eq!(watch.see(&writing(9_000, 5_000)), Decision::Nothing);
    }

    #[test]
    fn a_window_that_leaves_no_room_for_an_entry_is_narrowed_to_one_that_does() {
        let mut watch = watch();
        let refused = Sample {
            refused_tokens: 60_000,
            refused_bytes: 10_600 * MB,
            ..holding(7_000)
        };
        // 60,000 tokens need 6.6 GB, so 5.5 GB are enough for 50,000.
        assert_eq!(watch.see(&refused), Decision::Narrow(49_152));
        assert_eq!(watch.see(&refused), Decision::Nothing);
    }

    #[test]
    fn it_never_becomes_too_narrow_for_a_session_nor_wider() {
        let mut watch = watch();
        let smallest = smallest_window(8_192);
        assert_eq!(
            watch.see(&writing(12_000, 9_900)),
            Decision::Narrow(smallest)
        );
        assert_eq!(watch.see(&writing(60_000, 9_900)), Decision::Nothing);
        let mut small = MemoryWatch::new(10_000 * MB, window(20_000));
        assert_eq!(small.see(&writing(12_000, 9_900)), Decision::Nothing);
    }

    #[test]
    fn where_nothing_is_known_of_the_conversation_a_quarter_goes_at_a_time() {
        let mut watch = watch();
        assert_eq!(watch.see(&holding(9_600)), Decision::Narrow(49_152));
        assert_eq!(watch.see(&holding(9_600)), Decision::Nothing);
        assert_eq!(watch.see(&holding(5_000)), Decision::Nothing);
        assert_eq!(watch.see(&holding(9_600)), Decision::Narrow(36_864));
    }

    #[test]
    fn weights_that_take_it_all_are_nothing_that_could_be_helped() {
        let sample = Sample {
            base: 9_600 * MB,
            ..with_cache(1_000, writing(50_000, 12_000))
        };
        assert_eq!(watch().see(&sample), Decision::Nothing);
    }
}
