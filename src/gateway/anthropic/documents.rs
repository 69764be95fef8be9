//! Documents as text: no engine takes them as they are.

use std::collections::HashMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::gateway::anthropic::Pictures;
use crate::gateway::anthropic::media::{
    Media, decoded, not_fetched, other_in_words, picture_in_words,
};

/// The most text of one PDF, in characters: about 15,000 tokens, which leaves room for a conversation about it in the smallest window.
pub(crate) const MAX_CHARACTERS: usize = 60_000;

/// The outcome of reading a PDF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PdfText {
    /// The text of its first pages, and how many pages it has.
    Pages { texts: Vec<String>, count: usize },
    /// It needs a password.
    Encrypted,
    /// It is damaged, or no PDF.
    Broken,
    /// Reading it takes too long or too much memory.
    TooMuch,
}

/// PDFs that were read, by what they hold.
#[derive(Debug, Clone, Default)]
pub struct PdfTexts(HashMap<PdfKey, PdfText>);

/// Stands for one PDF.
pub(crate) type PdfKey = [u8; 32];

impl PdfTexts {
    /// The key of a PDF in base64.
    pub(crate) fn key(base64: &str) -> PdfKey {
        Sha256::digest(base64).into()
    }

    pub(crate) fn insert(&mut self, key: PdfKey, text: PdfText) {
        self.0.insert(key, text);
    }

    fn get(&self, base64: &str) -> Option<&PdfText> {
        match self.0.is_empty() {
            true => None,
            false => self.0.get(&Self::key(base64)),
        }
    }
}

/// The PDFs in a conversation, in base64. Reading them can take long, so that is done elsewhere.
pub(crate) fn pdfs(messages: &[Value]) -> Vec<&str> {
    let mut found = Vec::new();
    for message in messages {
        for block in list(&message["content"]) {
            found.extend(pdf(block));
            found.extend(list(&block["content"]).filter_map(pdf));
        }
    }
    found
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn pdf(block: &Value) -> Option<&str> {
    let source = &block["source"];
    (block["type"] == "document"
        && source["type"] == "base64"
        && source["media_type"] == "application/pdf")
        .then(|| source["data"].as_str().unwrap_or_default())
}

/// A document in words: what it is called, and its text.
pub(crate) fn document(block: &Value, media: &Media) -> String {
    let source = &block["source"];
    let text = match source["type"].as_str() {
        Some("base64") => match pdf(block) {
            Some(base64) => of_a_pdf(media.texts.get(base64), media.pictures),
            None => of_a_file(source),
        },
        Some("text") => source["data"].as_str().unwrap_or_default().to_owned(),
        Some("content") => match &source["content"] {
            Value::String(text) => text.clone(),
            parts => {
                let words = list(parts).map(|part| match part["type"].as_str() {
                    Some("text") => part["text"].as_str().unwrap_or_default().to_owned(),
                    // A picture in the middle of a text can't be shown there.
                    Some("image") => picture_in_words(part),
                    // The API knows none, and each level would be copied into the one around it.
                    Some("document") => "[a document inside of another one]".into(),
                    Some("tool_use" | "tool_result" | "thinking" | "redacted_thinking") => {
                        String::new()
                    }
                    _ => other_in_words(part),
                });
                words.collect::<Vec<_>>().join("\n")
            }
        },
        Some("url") => not_fetched("a document", &source["url"]),
        _ => "[a document that isn't on this machine]".into(),
    };
    let title = block["title"].as_str().filter(|title| !title.is_empty());
    let context = block["context"].as_str().filter(|text| !text.is_empty());
    let heading = title.map(|title| format!("[document: {title}]"));
    [heading.as_deref(), context, Some(&text)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n")
}

/// A file that is no PDF, as it says.
fn of_a_file(source: &Value) -> String {
    let kind = source["media_type"].as_str().unwrap_or_default();
    let data = source["data"].as_str().unwrap_or_default();
    if kind.starts_with("text/")
        && let Ok(bytes) = decoded(data)
    {
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    format!("[a document of the type {kind:?}, which this model can't see]")
}

fn of_a_pdf(text: Option<&PdfText>, pictures: Pictures) -> String {
    let (texts, count) = match text {
        Some(PdfText::Pages { texts, count }) => (texts, *count),
        Some(PdfText::Encrypted) => return "[a PDF that needs a password to be read]".into(),
        Some(PdfText::Broken) => return "[a PDF that can't be read: it is damaged]".into(),
        Some(PdfText::TooMuch) => return "[a PDF that takes too long to be read]".into(),
        None => return "[a PDF that can't be read here]".into(),
    };
    // Its pages can be asked for as pictures.
    let see = match pictures {
        Pictures::Words => "",
        _ => "; Read with `pages` gives pages as pictures",
    };
    if texts.iter().all(|text| text.trim().is_empty()) {
        return format!(
            "[a PDF of {} without text, such as a scan{see}]",
            pages(count)
        );
    }
    let mut words = format!("[the text of a PDF of {}]", pages(count));
    let mut left = MAX_CHARACTERS;
    let mut told = 0;
    for text in texts {
        if left == 0 {
            break;
        }
        told += 1;
        let text = text.trim();
        if text.is_empty() {
            words += &format!("\n[page {told} has no text]");
            continue;
        }
        words += &format!("\n[page {told}]\n");
        match text.char_indices().nth(left) {
            None => {
                words += text;
                left -= text.chars().count();
            }
            Some((end, _)) => {
                words += &text[..end];
                words += &format!("\n[the rest of page {told} is left out]");
                left = 0;
            }
        }
    }
    if told < count {
        words += &match told + 1 == count {
            true => format!("\n[page {count} is left out{see}]"),
            false => format!("\n[pages {} to {count} are left out{see}]", told + 1),
        };
    }
    words
}

fn pages(count: usize) -> String {
    match count {
        1 => "1 page".into(),
        _ => format!("{count} pages"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PDF: &str = "JVBERi0=";

    fn block(source: Value) -> Value {
        json!({"type": "document", "source": source})
    }

    fn pdf_block(data: &str) -> Value {
        block(json!({"type": "base64", "media_type": "application/pdf", "data": data}))
    }

    fn said(block: &Value, text: Option<PdfText>, pictures: Pictures) -> String {
        let mut texts = PdfTexts::default();
        if let Some(text) = text {
            texts.insert(PdfTexts::key(PDF), text);
        }
        let texts = &texts;
        document(block, &Media { pictures, texts })
    }

    fn of_pages(texts: &[&str], count: usize) -> String {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let text = Some(PdfText::Pages { texts, count });
        said(&pdf_block(PDF), text, Pictures::Words)
    }

    #[test]
    fn a_pdf_is_its_text_page_by_page() {
        insta::assert_snapshot!(of_pages(&["One.", " ", "Three."], 3), @"
        [the text of a PDF of 3 pages]
        [page 1]
        One.
        [page 2 has no text]
        [page 3]
        Three.
        ");
        assert_eq!(
            of_pages(&["", ""], 2),
            "[a PDF of 2 pages without text, such as a scan]"
        );
    }

    #[test]
    fn a_long_pdf_is_cut_and_says_where() {
        let long = "é".repeat(MAX_CHARACTERS);
        let whole = of_pages(&[&long], 1);
        assert!(whole.ends_with('é'));
        let rest = of_pages(&["ab", &long, "c"], 3);
        assert!(
            rest.ends_with("é\n[the rest of page 2 is left out]\n[page 3 is left out]"),
            "{}",
            &rest[rest.len() - 100..]
        );
        assert_eq!(rest.matches('é').count(), MAX_CHARACTERS - 2);
        assert!(of_pages(&["a"], 87).ends_with("\n[pages 2 to 87 are left out]"));
        let texts = vec!["a".into()];
        let text = Some(PdfText::Pages { texts, count: 2 });
        let seeing = said(&pdf_block(PDF), text, Pictures::Shown);
        assert!(
            seeing.ends_with("[page 2 is left out; Read with `pages` gives pages as pictures]")
        );
    }

    #[test]
    fn a_pdf_that_cannot_be_read_is_said_to_be() {
        for (text, words) in [
            (Some(PdfText::Encrypted), "needs a password"),
            (Some(PdfText::Broken), "is damaged"),
            (Some(PdfText::TooMuch), "takes too long"),
            (None, "can't be read here"),
        ] {
            let said = said(&pdf_block(PDF), text, Pictures::Words);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn other_documents_are_their_text() {
        for (source, expected) in [
            (
                json!({"type": "text", "media_type": "text/plain", "data": "hello"}),
                "hello",
            ),
            (
                json!({"type": "base64", "media_type": "text/csv", "data": "YSxi"}),
                "a,b",
            ),
            (
                json!({"type": "base64", "media_type": "a/b", "data": "YSxi"}),
                "[a document of the type \"a/b\", which this model can't see]",
            ),
            (json!({"type": "content", "content": "hello"}), "hello"),
            (
                json!({"type": "content", "content": [{"type": "text", "text": "hello"}, {"type": "image", "source": {"type": "base64", "data": ""}}]}),
                "hello\n[a picture that can't be read: it is empty]",
            ),
            (
                json!({"type": "url", "url": "https://example.com/a.pdf"}),
                "[a document at https://example.com/a.pdf, which was not fetched: nothing leaves this machine]",
            ),
            (
                json!({"type": "file", "file_id": "f"}),
                "[a document that isn't on this machine]",
            ),
        ] {
            assert_eq!(said(&block(source), None, Pictures::Shown), expected);
        }
        let mut titled = block(json!({"type": "text", "data": "hello"}));
        titled["title"] = json!("Notes");
        titled["context"] = json!("from the meeting");
        assert_eq!(
            said(&titled, None, Pictures::Words),
            "[document: Notes]\nfrom the meeting\nhello"
        );
    }

    #[test]
    fn pdfs_are_found_in_turns_and_in_results() {
        let messages = [
            json!({"role": "user", "content": "hi"}),
            json!({"role": "user", "content": [pdf_block("a"), {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "b"}, pdf_block("c")]}]}),
            json!({"role": "user", "content": [block(json!({"type": "text", "data": "d"}))]}),
        ];
        assert_eq!(pdfs(&messages), ["a", "c"]);
    }
}
