//! Memory arithmetic: pure.

use serde::Serialize;

use crate::machine::memory::Memory;

/// With this much left beside the weights, a long conversation fits, in bytes. Source: the scripts' README, problem 17 ("~6GB").
pub const AMPLE_HEADROOM: u64 = 6_000_000_000;

/// The window of a model that has ample room, in tokens.
pub const WIDE_WINDOW: u64 = 65_536;

/// The window where room is short or unknown, in tokens. Source: the scripts' default.
pub const NARROW_WINDOW: u64 = 32_768;

/// Where the figure for the weights comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsSource {
    /// Their size on this disk.
    Disk,
    /// The catalogue's download size.
    Catalog,
}

/// What is known of memory, and what follows for the window.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// This machine's memory, if the system told.
    pub machine: Option<Memory>,
    /// Bytes of the weights, if known.
    pub weights: Option<u64>,
    pub weights_source: Option<WeightsSource>,
    /// Budget less weights, in bytes; below zero it does not fit.
    pub headroom: Option<i64>,
    /// The context window that Claude Code is told, in tokens.
    pub context_window: u64,
    /// Why this window, in words.
    pub why: String,
}

/// Chooses the window: what was asked for, else by the headroom that this machine has for the model.
pub fn figures(
    machine: Option<Memory>,
    weights: Option<(u64, WeightsSource)>,
    asked: Option<u64>,
) -> Figures {
    let headroom = machine.zip(weights).map(|(memory, (weights, _))| {
        i64::try_from(memory.budget).unwrap_or(i64::MAX)
            - i64::try_from(weights).unwrap_or(i64::MAX)
    });
    let ample = headroom.is_some_and(|headroom| headroom >= AMPLE_HEADROOM as i64);
    let (context_window, why) = match (asked, headroom) {
        (Some(asked), _) => (asked, "as asked with --ctx".into()),
        (None, None) => (NARROW_WINDOW, "memory or model size unknown".into()),
        (None, Some(headroom)) => {
            let room = format!("{:.1} GB beside the weights", headroom as f64 / 1e9);
            if ample {
                (WIDE_WINDOW, room)
            } else {
                (NARROW_WINDOW, format!("only {room}"))
            }
        }
    };
    Figures {
        machine,
        weights: weights.map(|(bytes, _)| bytes),
        weights_source: weights.map(|(_, source)| source),
        headroom,
        context_window,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory::BudgetSource;

    fn mac(gib: u64) -> Memory {
        let ram = gib << 30;
        Memory {
            ram,
            budget: ram / 4 * 3,
            budget_source: BudgetSource::ThreeQuartersOfRam,
        }
    }

    #[test]
    fn the_window_follows_the_headroom() {
        let window = |gib, weights: u64| {
            figures(
                Some(mac(gib)),
                Some((weights, WeightsSource::Catalog)),
                None,
            )
            .context_window
        };
        assert_eq!(window(16, 5_000_000_000), WIDE_WINDOW);
        assert_eq!(window(24, 16_000_000_000), NARROW_WINDOW);
        assert_eq!(window(36, 16_000_000_000), WIDE_WINDOW);
        assert_eq!(figures(None, None, None).context_window, NARROW_WINDOW);
        assert_eq!(figures(None, None, Some(50_000)).context_window, 50_000);
    }

    #[test]
    fn a_model_that_does_not_fit_has_headroom_below_zero() {
        let figures = figures(
            Some(mac(16)),
            Some((18_000_000_000, WeightsSource::Disk)),
            None,
        );
        assert!(figures.headroom.is_some_and(|headroom| headroom < 0));
    }
}
