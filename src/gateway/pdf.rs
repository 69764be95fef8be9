//! The text of PDFs, read by a process of its own: a PDF can be made to crash its reader, to keep it busy for ever, or to fill the memory.
//!
//! The process is this program again (`cclocal read-pdf`). It gets a PDF in base64 on its standard input, and writes lines of JSON: how many pages there
//! are, then the text of each. What it has written when it ends, in whatever way, is what is known of the PDF.

use std::collections::{HashSet, VecDeque};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use pdf_extract::{Document, PlainTextOutput, output_doc_page};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::gateway::anthropic::{MAX_CHARACTERS, PdfKey, PdfText, PdfTexts};

/// The most pages of one PDF that are read.
const MAX_PAGES: usize = 200;
/// How long one PDF may take.
const LONGEST: Duration = Duration::from_secs(10);
/// How long all PDFs of one request may take.
const LONGEST_OF_REQUEST: Duration = Duration::from_secs(60);
/// The most memory that its reader may take, in bytes.
const MAX_MEMORY: u64 = 1 << 30;
/// How often the reader looks at its time and memory.
const WATCH: Duration = Duration::from_millis(20);
/// How many PDFs are remembered.
const REMEMBERED: usize = 64;
/// How many are read at a time.
const AT_A_TIME: usize = 2;

/// The reader's status when it has taken too much time or memory.
const TOO_MUCH: u8 = 3;
/// The reader's status when the PDF needs a password.
const ENCRYPTED: u8 = 4;
/// The reader's status when the PDF can't be read.
const BROKEN: u8 = 5;

/// Reads PDFs, and remembers what it read: a conversation repeats them with each request.
#[derive(Debug)]
pub(super) struct Pdfs {
    reader: Option<PathBuf>,
    known: Mutex<VecDeque<(PdfKey, PdfText)>>,
    places: Semaphore,
}

impl Pdfs {
    /// `reader`: this program. None reads nothing.
    pub(super) fn new(reader: Option<PathBuf>) -> Self {
        Self {
            reader,
            known: Mutex::default(),
            places: Semaphore::new(AT_A_TIME),
        }
    }

    /// The texts of those of these PDFs, which are in base64, that were read before, and the others.
    pub(super) fn known(&self, pdfs: Vec<&str>) -> (PdfTexts, Vec<(PdfKey, String)>) {
        let mut texts = PdfTexts::default();
        let (mut others, mut met) = (Vec::new(), HashSet::new());
        if self.reader.is_some() {
            for pdf in pdfs {
                let key = PdfTexts::key(pdf);
                match self.remembered(&key) {
                    Some(text) => texts.insert(key, text),
                    None if met.insert(key) => others.push((key, pdf.to_owned())),
                    None => {}
                }
            }
        }
        (texts, others)
    }

    /// Reads PDFs, and puts their texts to those that are known.
    pub(super) async fn read_all(&self, pdfs: Vec<(PdfKey, String)>, texts: &mut PdfTexts) {
        let Some(reader) = &self.reader else {
            return;
        };
        let until = tokio::time::Instant::now() + LONGEST_OF_REQUEST;
        for (key, pdf) in pdfs {
            let text = match tokio::time::timeout_at(until, self.read(reader, &pdf)).await {
                Ok(text) => {
                    self.remember(key, text.clone());
                    text
                }
                Err(_) => PdfText::TooMuch,
            };
            texts.insert(key, text);
        }
    }

    async fn read(&self, reader: &Path, pdf: &str) -> PdfText {
        let _place = self.places.acquire().await;
        match tokio::time::timeout(LONGEST * 2, read(reader, pdf)).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the reader of PDFs cannot be run");
                PdfText::Broken
            }
            Err(_) => PdfText::TooMuch,
        }
    }

    fn remembered(&self, key: &PdfKey) -> Option<PdfText> {
        let mut known = self.lock();
        let at = known.iter().position(|(other, _)| other == key)?;
        let found = known.remove(at)?;
        let text = found.1.clone();
        known.push_back(found);
        Some(text)
    }

    fn remember(&self, key: PdfKey, text: PdfText) {
        let mut known = self.lock();
        if known.len() >= REMEMBERED {
            known.pop_front();
        }
        known.push_back((key, text));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(PdfKey, PdfText)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most that is taken of a reader's output, in bytes: several times what is shown of a PDF.
const LONGEST_OUTPUT: u64 = 64 << 20;

/// Runs the reader. It ends when this is dropped.
async fn read(reader: &Path, pdf: &str) -> std::io::Result<PdfText> {
    let mut child = Command::new(reader)
        .arg(COMMAND)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // One that has ended says why by its status.
        let _ = input.write_all(pdf.as_bytes()).await;
    }
    let mut told = Vec::new();
    if let Some(output) = child.stdout.take() {
        // What is more is not waited for: the pipe closes, and the reader ends.
        output.take(LONGEST_OUTPUT).read_to_end(&mut told).await?;
    }
    let status = child.wait().await?;
    let mut lines = told
        .split(|byte| *byte == b'\n')
        .map_while(|line| serde_json::from_slice::<Value>(line).ok());
    let count = lines.next().and_then(|count| count.as_u64());
    let texts: Vec<String> = lines
        .map_while(|text| text.as_str().map(str::to_owned))
        .collect();
    let status = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(match (count, status) {
        (Some(count), _) if !texts.is_empty() => PdfText::Pages {
            texts,
            count: usize::try_from(count).unwrap_or(usize::MAX),
        },
        (_, Some(TOO_MUCH)) => PdfText::TooMuch,
        (_, Some(ENCRYPTED)) => PdfText::Encrypted,
        _ => PdfText::Broken,
    })
}

/// The command by which this program reads a PDF.
pub const COMMAND: &str = "read-pdf";

/// Reads a PDF in base64 from the standard input and writes its text: all that `cclocal read-pdf` does. Returns its exit status.
pub fn run() -> u8 {
    // What goes wrong inside is told by the status.
    std::panic::set_hook(Box::new(|_| {}));
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    std::thread::spawn(watch);
    let mut base64 = String::new();
    if std::io::stdin().read_to_string(&mut base64).is_err() {
        return BROKEN;
    }
    let Ok(bytes) = super::anthropic::decoded(&base64) else {
        return BROKEN;
    };
    drop(base64);
    catch_unwind(AssertUnwindSafe(|| tell(&bytes, &mut std::io::stdout()))).unwrap_or(BROKEN)
}

/// Ends this process when it takes too much.
fn watch() {
    let begun = Instant::now();
    loop {
        std::thread::sleep(WATCH);
        let memory = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss());
        // In bytes on macOS alone.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        if begun.elapsed() > LONGEST || memory.unsigned_abs() * unit > MAX_MEMORY {
            std::process::exit(TOO_MUCH.into());
        }
    }
}

/// Writes the number of pages, and the text of each as far as it is passed on.
fn tell(pdf: &[u8], out: &mut impl Write) -> u8 {
    let Ok(mut document) = Document::load_mem(pdf) else {
        return BROKEN;
    };
    // Many are encrypted with no password, so as not to be changed.
    if document.is_encrypted() && document.decrypt("").is_err() {
        return ENCRYPTED;
    }
    let pages: Vec<u32> = document.get_pages().into_keys().collect();
    if pages.is_empty() || writeln!(out, "{}", pages.len()).is_err() {
        return BROKEN;
    }
    let mut left = MAX_CHARACTERS;
    for page in pages.into_iter().take(MAX_PAGES) {
        let text = catch_unwind(AssertUnwindSafe(|| text_of(&document, page))).unwrap_or_default();
        // One more than is passed on shows that something is left out.
        let text: String = tidy(&text).chars().take(left + 1).collect();
        left = left.saturating_sub(text.chars().count());
        if writeln!(out, "{}", json!(text)).is_err() || out.flush().is_err() {
            return BROKEN;
        }
        if left == 0 {
            break;
        }
    }
    0
}

/// The text of a page, as far as it can be read.
fn text_of(document: &Document, page: u32) -> String {
    let mut text = Enough(Vec::new());
    let mut output = PlainTextOutput::new(&mut text as &mut dyn Write);
    let _ = output_doc_page(document, &mut output, page);
    String::from_utf8_lossy(&text.0).into_owned()
}

/// Takes as much text as could be passed on, and then refuses, which ends the reading of a page.
struct Enough(Vec<u8>);

impl Write for Enough {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // A character has at most four bytes; white space is taken out later.
        if self.0.len() > MAX_CHARACTERS * 8 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Without trailing spaces and more than one empty line.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines().map(str::trim_end) {
        empty = if line.is_empty() { empty + 1 } else { 0 };
        if empty < 2 {
            tidy.extend(line.chars().filter(|letter| *letter != '\0'));
            tidy.push('\n');
        }
    }
    tidy.trim().to_owned()
}
