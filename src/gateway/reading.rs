//! Requests from their bytes to what the engine gets, with the text of the PDFs in them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::pdf::Pdfs;
use super::server::Gateway;
use super::wire::{ApiError, Draft, PdfTexts, Request};

/// The most tools that are named, and the most characters of a name.
const NAMED: (usize, usize) = (100, 200);

/// PDFs that were read, and tools that were named, in earlier requests.
#[derive(Debug)]
pub struct Reading {
    pdfs: Pdfs,
    /// Tools that were left out, and that the log names already.
    named: Mutex<BTreeSet<String>>,
}

impl Reading {
    /// `pdf_reader`: see [`super::Settings`].
    pub fn new(pdf_reader: Option<PathBuf>) -> Self {
        Self {
            pdfs: Pdfs::new(pdf_reader),
            named: Mutex::default(),
        }
    }

    /// Names tools that can't be passed on, each once.
    fn name(&self, left_out: &[String]) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        for tool in left_out {
            let tool: String = tool.chars().take(NAMED.1).collect();
            if named.len() < NAMED.0 && named.insert(tool.clone()) {
                tracing::warn!(
                    tool,
                    "a tool is left out: its name is empty, too long, or another one's"
                );
            }
        }
    }
}

/// Reads a body of `POST /v1/messages`. Errors: it is no such request.
pub async fn message(gateway: &Gateway, body: &[u8]) -> Result<Request, ApiError> {
    let (draft, texts) = draft(gateway, body).await?;
    let request = draft.messages(&gateway.served(), &texts)?;
    gateway.reading.name(&request.left_out);
    Ok(request)
}

/// Reads a body of `POST /v1/messages/count_tokens`, and returns what the engine counts. Errors: it is no such request.
pub async fn count(gateway: &Gateway, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let (draft, texts) = draft(gateway, body).await?;
    Ok(draft.count_tokens(&gateway.served(), &texts))
}

async fn draft(gateway: &Gateway, body: &[u8]) -> Result<(Draft, PdfTexts), ApiError> {
    let draft = Draft::read(body)?;
    let texts = gateway.reading.pdfs.texts(draft.pdfs()).await;
    Ok((draft, texts))
}
