//! The window of a turn: prompt and reply fit into it together, or the request is refused.

use super::Turn;
use crate::gateway::anthropic::{ApiError, Overflow};
use crate::gateway::metrics::Ended;
use crate::gateway::upstream::{Failure, Target};
use crate::memory::OUTPUTS;

/// Tokens that the engine's template may add to what is in the body, with room to spare: instructions on how tools are called take most of it.
const TEMPLATE_TOKENS: u64 = 4096;

/// What a prompt has to leave of the window for a reply, in tokens, unless less is asked for: as much as the shortest that is planned, so that the
/// summary of a compaction is whole.
const LEAST_LEFT: u64 = OUTPUTS[1];

impl Turn {
    /// A shorter reply, in tokens, with which the engine may take a request that was too long for it. None: none would be long enough, or it was tried.
    pub(super) fn shorter_reply(&self, overflow: &Overflow) -> Option<u64> {
        let window = overflow.window?;
        let prompt = overflow.prompt.unwrap_or(0);
        let least = self.least();
        let left = window.saturating_sub(prompt);
        let reply = match overflow.at_least || overflow.prompt.is_none() {
            true => least,
            false => left,
        };
        (left >= least && reply < self.request.max_tokens).then_some(reply)
    }

    /// The error for a prompt that is too long, whatever is known of its length.
    pub(super) fn too_long(&mut self, overflow: &Overflow) -> Failure {
        self.running.end(Ended::Refused);
        let window = overflow.window.unwrap_or(*self.gateway.window.borrow());
        let longest = window.saturating_sub(self.least());
        let tokens = overflow.prompt.max(self.counted).unwrap_or(0);
        let error = ApiError::prompt_too_long(tokens.max(longest + 1), longest);
        Failure::Refused(error)
    }

    /// What a prompt has to leave for its reply, in tokens.
    fn least(&self) -> u64 {
        self.asked.min(LEAST_LEFT)
    }

    pub(super) fn limit_reply(&mut self, reply: u64) {
        self.request.limit_reply(reply);
        self.body = self.request.body.clone();
    }

    /// Sees to it that prompt and reply fit into the window: a reply gets what the prompt leaves of it, and a prompt that leaves too little is refused.
    pub(super) async fn guard(&mut self, target: &Target) -> Result<(), Failure> {
        let reply = self.longest_reply(target).await?;
        if reply != self.request.max_tokens {
            tracing::debug!(reply, asked = self.asked, "the window leaves less");
            self.limit_reply(reply);
        }
        Ok(())
    }

    /// In tokens. Only what could be too long is counted: a token of text has at least one byte.
    async fn longest_reply(&mut self, target: &Target) -> Result<u64, Failure> {
        let window = *self.gateway.window.borrow();
        let needed = self.body.len() as u64 + TEMPLATE_TOKENS + self.asked;
        if !self.request.has_pictures && needed <= window {
            return Ok(self.asked);
        }
        let tokens = match self.counted {
            Some(tokens) => tokens,
            None => {
                let upstream = &self.gateway.upstream;
                let deadline = self.gateway.limits.count;
                match upstream.count(target, self.body.clone(), deadline).await {
                    Ok(tokens) => *self.counted.insert(tokens),
                    Err(Failure::Lost(why)) => return Err(Failure::Lost(why)),
                    // Some refuse to count what is longer than their window.
                    Err(Failure::Refused(ApiError {
                        overflow: Some(overflow),
                        ..
                    })) => return Err(self.too_long(&overflow)),
                    // An engine that cannot count must do without.
                    Err(
                        Failure::Stalled
                        | Failure::Away(_)
                        | Failure::Busy(..)
                        | Failure::Refused(_),
                    ) => {
                        tracing::debug!("the engine does not count tokens");
                        return Ok(self.asked);
                    }
                }
            }
        };
        let longest = window.saturating_sub(self.least());
        if tokens > longest {
            self.running.end(Ended::Refused);
            return Err(Failure::Refused(ApiError::prompt_too_long(tokens, longest)));
        }
        Ok(self.asked.min(window - tokens))
    }
}
