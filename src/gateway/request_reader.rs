//! Requests from their bytes to what the engine gets, with the text of the PDFs in them.
//!
//! What takes long is done on a thread of its own, one body at a time: the supervisor has one thread for all else, and a body takes several times its size
//! in memory while it is worked on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::pdf::Pdfs;
use super::server::Gateway;
use crate::gateway::anthropic::{ApiError, Draft, PdfKey, PdfTexts, Request};
use crate::gateway::auth::Caller;
use crate::gateway::cache_breaks::Parts;
use crate::gateway::prompt_prefixes::PromptPrefix;

/// The most tools that are named, and the most characters of a name.
const NAMED: (usize, usize) = (100, 200);

/// Bodies up to this length, in bytes, are worked on at once: that takes less than a millisecond, and another thread some of it.
const SHORT: usize = 64 << 10;

/// PDFs that were read, and tools that were named, in earlier requests.
#[derive(Debug)]
pub(crate) struct Reading {
    pdfs: Pdfs,
    /// Tools that were left out, and that the log names already.
    named: Mutex<BTreeSet<String>>,
    /// The one place on the thread for long bodies.
    place: Arc<Semaphore>,
}

impl Reading {
    /// `pdf_reader`: see [`super::Settings`].
    pub(crate) fn new(pdf_reader: Option<PathBuf>) -> Self {
        Self {
            pdfs: Pdfs::new(pdf_reader),
            named: Mutex::default(),
            place: Arc::new(Semaphore::new(1)),
        }
    }

    /// Works on a body of this length, in bytes: elsewhere if it is long.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        length: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if length <= SHORT {
            return Ok(work());
        }
        let place = self.place.clone().acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            // Given up when the work is done, also if nobody waits for it any more.
            let _place = place;
            work()
        });
        done.await
            .map_err(|_| ApiError::new(500, "api_error", "the request could not be read"))
    }

    /// Names tools that can't be passed on, each once.
    fn name(&self, left_out: &[String]) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        for tool in left_out {
            if named.len() >= NAMED.0 {
                return;
            }
            let tool: String = tool.chars().take(NAMED.1).collect();
            if named.insert(tool.clone()) {
                tracing::warn!(
                    tool,
                    "a tool is left out: its name is empty, too long, or another one's"
                );
            }
        }
    }
}

/// A request for a message, the parts of its prompt, and how its session begins if that is wanted.
pub(super) type Message = (Request, Option<Parts>, Option<PromptPrefix>);

/// Reads a body of `POST /v1/messages`. Errors: it is no such request.
pub(super) async fn message(
    gateway: &Gateway,
    caller: Caller,
    body: Bytes,
) -> Result<Message, ApiError> {
    let length = body.len();
    let shared = gateway.clone();
    let finish = move |draft: Draft, texts: &PdfTexts| -> Result<Message, ApiError> {
        let mut request = draft.messages(&shared.served(), texts)?;
        // What the model wrote is read from streams alone.
        if shared.exclusive {
            request.ask_for_a_stream();
        }
        shared.reading.name(&request.left_out);
        let prefix = match shared.prefix_warmer.wants_prefix(caller) {
            true => PromptPrefix::of(&request.body),
            false => None,
        };
        let parts = Parts::of(&request.body);
        Ok((request, parts, prefix))
    };
    read(gateway, body, length, finish).await
}

/// Reads a body of `POST /v1/messages/count_tokens`, and returns what the engine counts. Errors: it is no such request.
pub(super) async fn count(gateway: &Gateway, body: Bytes) -> Result<Vec<u8>, ApiError> {
    let length = body.len();
    let shared = gateway.clone();
    let finish =
        move |draft: Draft, texts: &PdfTexts| Ok(draft.count_tokens(&shared.served(), texts));
    read(gateway, body, length, finish).await
}

/// A draft whose PDFs are known, or one with some that are not.
enum Read<T> {
    Done(T),
    Lacking(Draft, PdfTexts, Vec<(PdfKey, String)>),
}

async fn read<T: Send + 'static>(
    gateway: &Gateway,
    body: Bytes,
    length: usize,
    finish: impl FnOnce(Draft, &PdfTexts) -> Result<T, ApiError> + Clone + Send + 'static,
) -> Result<T, ApiError> {
    let reading = &gateway.reading;
    let shared = gateway.clone();
    let finishing = finish.clone();
    let read = move || {
        let draft = Draft::read(&body)?;
        drop(body);
        let (texts, lacking) = shared.reading.pdfs.known(draft.pdfs());
        Ok(match lacking.is_empty() {
            true => Read::Done(finishing(draft, &texts)?),
            false => Read::Lacking(draft, texts, lacking),
        })
    };
    match reading.work(length, read).await?? {
        Read::Done(done) => Ok(done),
        Read::Lacking(draft, mut texts, lacking) => {
            reading.pdfs.read_all(lacking, &mut texts).await;
            reading.work(length, move || finish(draft, &texts)).await?
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn long_bodies_are_worked_on_one_at_a_time_and_keep_nobody_waiting() {
        let reading = Arc::new(Reading::new(None));
        let (go_on, wait) = mpsc::channel::<()>();
        let long = reading.work(SHORT + 1, move || wait.recv().is_ok());
        let mut long = Box::pin(long);
        assert!(long.as_mut().now_or_never().is_none());
        // It is at work now, and this is the one thread of the gateway.
        assert_eq!(reading.work(SHORT, || 1).await, Ok(1));
        let mut next = Box::pin(reading.work(SHORT + 1, || 2));
        assert!(next.as_mut().now_or_never().is_none());
        go_on.send(()).expect("it waits");
        assert_eq!(long.await, Ok(true));
        assert_eq!(next.await, Ok(2));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_gives_its_place_up() {
        let reading = Reading::new(None);
        let (go_on, wait) = mpsc::channel::<()>();
        let long = reading.work(SHORT + 1, move || wait.recv().is_ok());
        let mut long = Box::pin(long);
        assert!(long.as_mut().now_or_never().is_none());
        drop(long);
        go_on.send(()).expect("it is at work");
        assert_eq!(reading.work(SHORT + 1, || 2).await, Ok(2));
    }
}
