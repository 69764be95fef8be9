//! Pictures and documents as the model gets them: words where it would see nothing.
//!
//! The engine (vllm-mlx 0.6.0) drops documents, pictures in tool results, and without vision pictures in the user's turns, all without a word. Blocks of
//! a type that it does not know are dropped, too, or answered with a bare 500. The same block becomes the same words each time, so the prompt only grows at
//! its end.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::gateway::anthropic::Pictures;
use crate::gateway::anthropic::documents::{PdfTexts, document};

/// Enough of a picture to find its size, in bytes of base64: a multiple of four. A photograph's preview and colour profile may stand before it.
const HEAD: usize = 256 << 10;

/// A picture with more is taken for an attack by the library that opens it. Source: twice Pillow's `MAX_IMAGE_PIXELS`.
const MAX_PIXELS: usize = 2 * 89_478_485;

/// The longest picture in base64 that the engine takes, in bytes. Source: vllm-mlx 0.6.0, `MAX_BASE64_IMAGE_LENGTH`, less the `data:` in front of it.
const LONGEST: usize = (30 << 20) - 100;

/// The most that is told of an address, in characters.
const LONGEST_ADDRESS: usize = 200;

/// Passes blocks on, in the form that the model takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Media<'a> {
    pub pictures: Pictures,
    /// The text of the PDFs in this request.
    pub texts: &'a PdfTexts,
}

/// A block as it is passed on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// As it was.
    Block(Value),
    /// In words.
    Words(String),
    /// As a picture that the model sees.
    Picture(Value),
}

impl Part {
    /// As a block of a turn.
    pub(super) fn block(self) -> Value {
        match self {
            Self::Block(block) | Self::Picture(block) => block,
            Self::Words(words) => json!({"type": "text", "text": words}),
        }
    }
}

impl Media<'_> {
    pub(super) fn part(&self, block: Value) -> Part {
        match block["type"].as_str() {
            Some("image") => self.picture(block),
            Some("document") => Part::Words(document(&block, self)),
            Some("text" | "tool_use" | "tool_result" | "thinking" | "redacted_thinking") => {
                Part::Block(block)
            }
            _ => Part::Words(other_in_words(&block)),
        }
    }

    fn picture(&self, block: Value) -> Part {
        if self.pictures == Pictures::Untouched {
            return Part::Block(block);
        }
        match (self.pictures, data(&block)) {
            (Pictures::Shown, Ok(data)) => match whole(data) {
                Ok(source) => Part::Picture(json!({"type": "image", "source": source})),
                Err(why) => Part::Words(unreadable(why)),
            },
            _ => Part::Words(picture_in_words(&block)),
        }
    }
}

/// The data of a picture in base64. Err: words for one that is elsewhere.
fn data(picture: &Value) -> Result<&str, String> {
    let source = &picture["source"];
    match source["type"].as_str() {
        Some("base64") => Ok(source["data"].as_str().unwrap_or_default()),
        Some("url") => Err(not_fetched("a picture", &source["url"])),
        _ => Err("[a picture that isn't on this machine]".into()),
    }
}

fn unreadable(why: Why) -> String {
    format!("[a picture that can't be read: {why}]")
}

/// A picture where none can be shown.
pub(super) fn picture_in_words(picture: &Value) -> String {
    let data = match data(picture) {
        Ok(data) => data,
        Err(words) => return words,
    };
    match Size::of_head(data) {
        Ok(Size {
            format,
            width,
            height,
        }) => format!(
            "[a picture of {width}×{height} pixels ({}) that this model can't see; `cclocal --vision` serves models that see pictures]",
            format.name
        ),
        Err(why) => unreadable(why),
    }
}

/// A block that is neither text nor a picture nor a document.
pub(super) fn other_in_words(block: &Value) -> String {
    match block.as_str() {
        Some(text) => text.to_owned(),
        None => in_words(block),
    }
}

/// Words for a picture or a document at an address, which is left there.
pub(super) fn not_fetched(what: &str, address: &Value) -> String {
    let address = address.as_str().unwrap_or("an unknown address");
    let address: String = address.chars().take(LONGEST_ADDRESS).collect();
    format!("[{what} at {address}, which was not fetched: nothing leaves this machine]")
}

/// A block of any other type.
fn in_words(block: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match block["type"].as_str().unwrap_or_default() {
        "server_tool_use" => match block["input"]["query"].as_str() {
            Some(query) => format!("[a web search for: {query}]"),
            None => format!("[a call of the server's tool {}]", text(&block["name"])),
        },
        "web_search_tool_result" => {
            let Value::Array(found) = &block["content"] else {
                let code = &block["content"]["error_code"];
                return format!(
                    "[the web search failed: {}]",
                    code.as_str().unwrap_or("unknown")
                );
            };
            let pages = found
                .iter()
                .map(|page| format!("{}\n{}", text(&page["title"]), text(&page["url"])));
            format!(
                "[the web search found:\n{}]",
                pages.collect::<Vec<_>>().join("\n")
            )
        }
        "search_result" => {
            let texts = block["content"].as_array().into_iter().flatten();
            let texts: Vec<String> = texts.map(|part| text(&part["text"])).collect();
            let (title, source) = (text(&block["title"]), text(&block["source"]));
            format!("{title}\n{source}\n{}", texts.join("\n"))
        }
        "tool_reference" => format!("[the tool {}]", text(&block["tool_name"])),
        other => format!("[a block of the type {other:?}, which this model can't see]"),
    }
}

/// A format that the engine opens.
#[derive(Debug, Clone, Copy)]
struct Format {
    name: &'static str,
    media_type: &'static str,
    /// Tells whether the bytes of a picture go on to its end.
    is_complete: fn(&[u8]) -> bool,
}

const PNG: Format = Format {
    name: "PNG",
    media_type: "image/png",
    is_complete: |bytes| bytes.windows(4).rev().take(64).any(|at| at == b"IEND"),
};
const JPEG: Format = Format {
    name: "JPEG",
    media_type: "image/jpeg",
    // Cameras append to what they took.
    is_complete: |bytes| bytes.windows(2).any(|at| at == [0xFF, 0xD9]),
};
const GIF: Format = Format {
    name: "GIF",
    media_type: "image/gif",
    is_complete: |bytes| bytes.iter().rev().take(64).any(|byte| *byte == b';'),
};
const WEBP: Format = Format {
    name: "WebP",
    media_type: "image/webp",
    is_complete: |bytes| {
        let length = bytes.get(4..8).and_then(|length| length.try_into().ok());
        length.is_some_and(|length| u64::from(u32::from_le_bytes(length)) + 8 <= bytes.len() as u64)
    },
};

/// Format and size of a picture, as its header says.
#[derive(Debug, Clone, Copy)]
struct Size {
    format: Format,
    width: usize,
    height: usize,
}

/// Why a picture can't be read.
type Why = &'static str;

impl Size {
    fn of(bytes: &[u8]) -> Result<Self, Why> {
        let format = match imagesize::image_type(bytes) {
            Ok(imagesize::ImageType::Png) => PNG,
            Ok(imagesize::ImageType::Jpeg) => JPEG,
            Ok(imagesize::ImageType::Gif) => GIF,
            Ok(imagesize::ImageType::Webp) => WEBP,
            _ => return Err("it is no PNG, JPEG, GIF or WebP"),
        };
        let size = imagesize::blob_size(bytes).map_err(|_| "it is damaged")?;
        if size.width == 0 || size.height == 0 {
            return Err("it is empty");
        }
        Ok(Self {
            format,
            width: size.width,
            height: size.height,
        })
    }

    /// From as little of a picture as it takes.
    fn of_head(base64: &str) -> Result<Self, Why> {
        if let Some(head) = base64.get(..HEAD)
            && let Ok(bytes) = decoded(head)
            && let Ok(size) = Self::of(&bytes)
        {
            return Ok(size);
        }
        Self::of(&decoded(base64)?)
    }
}

/// The source of a picture in the one form that the engine is sure to open.
fn whole(base64: &str) -> Result<Value, Why> {
    if base64.len() > LONGEST {
        return Err("it is too large");
    }
    let bytes = decoded(base64)?;
    let Size {
        format,
        width,
        height,
    } = Size::of(&bytes)?;
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err("it has too many pixels");
    }
    if !(format.is_complete)(&bytes) {
        return Err("its end is missing");
    }
    Ok(json!({
        "type": "base64",
        "media_type": format.media_type,
        "data": BASE64_STANDARD.encode(&bytes),
    }))
}

/// Base64 as clients write it: in lines, and without the padding at its end.
pub(crate) fn decoded(base64: &str) -> Result<Vec<u8>, Why> {
    use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let decoded = match LENIENT.decode(base64) {
        Ok(bytes) => bytes,
        Err(_) => {
            let mut joined = base64.as_bytes().to_vec();
            joined.retain(|byte| !byte.is_ascii_whitespace());
            LENIENT.decode(joined).map_err(|_| "it is not base64")?
        }
    };
    match decoded.is_empty() {
        true => Err("it is empty"),
        false => Ok(decoded),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The smallest PNG: one grey pixel.
    const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";
    const GIF: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

    fn part(block: Value, pictures: Pictures) -> Part {
        let texts = &PdfTexts::default();
        Media { pictures, texts }.part(block)
    }

    fn picture(data: &str) -> Value {
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}, "cache_control": {"type": "ephemeral"}})
    }

    fn words(block: Value) -> String {
        match part(block, Pictures::Words) {
            Part::Words(words) => words,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_picture_that_the_model_cannot_see_is_described() {
        let said = words(picture(PNG));
        assert_eq!(
            said,
            "[a picture of 1×1 pixels (PNG) that this model can't see; `cclocal --vision` serves models that see pictures]"
        );
        assert!(words(picture(GIF)).contains("(GIF)"));
        // In lines, without its padding, and with a long rest that needs no look.
        let lines = format!("{}\n{}", &PNG[..40], PNG[40..].trim_end_matches('='));
        assert_eq!(words(picture(&lines)), said);
        let long = format!("{}{}", &PNG[..44], "AAAA".repeat(HEAD));
        assert_eq!(words(picture(&long)), said);
    }

    #[test]
    fn a_picture_that_is_broken_is_said_to_be() {
        for (data, why) in [
            ("", "it is empty"),
            ("???", "it is not base64"),
            (
                "aGVsbG8gd29ybGQsIGhlbGxv",
                "it is no PNG, JPEG, GIF or WebP",
            ),
            (&PNG[..16], "it is damaged"),
        ] {
            let expected = format!("[a picture that can't be read: {why}]");
            for pictures in [Pictures::Words, Pictures::Shown] {
                let part = part(picture(data), pictures);
                assert_eq!(part, Part::Words(expected.clone()), "{data}");
            }
        }
        let cut = &PNG[..PNG.len() - 20];
        assert_eq!(
            part(picture(cut), Pictures::Shown),
            Part::Words("[a picture that can't be read: its end is missing]".into())
        );
    }

    #[test]
    fn a_picture_that_the_model_sees_has_the_one_form_that_the_engine_opens() {
        let lines = format!("{}\n{}", &PNG[..40], PNG[40..].trim_end_matches('='));
        let shown = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}});
        for data in [PNG, &lines] {
            assert_eq!(
                part(picture(data), Pictures::Shown),
                Part::Picture(shown.clone())
            );
        }
        let Part::Picture(gif) = part(picture(GIF), Pictures::Shown) else {
            panic!("a picture");
        };
        assert_eq!(gif["source"]["media_type"], "image/gif");
    }

    #[test]
    fn nothing_is_fetched() {
        let block =
            json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}});
        for pictures in [Pictures::Words, Pictures::Shown] {
            let Part::Words(words) = part(block.clone(), pictures) else {
                panic!("words");
            };
            assert!(
                words.contains("example.com/a.png, which was not fetched"),
                "{words}"
            );
        }
        assert_eq!(part(block.clone(), Pictures::Untouched), Part::Block(block));
    }

    #[test]
    fn blocks_of_other_types_become_words() {
        for (block, said) in [
            (
                json!({"type": "server_tool_use", "id": "a", "name": "web_search", "input": {"query": "rust"}}),
                "[a web search for: rust]",
            ),
            (
                json!({"type": "web_search_tool_result", "tool_use_id": "a", "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"}}),
                "[the web search failed: unavailable]",
            ),
            (
                json!({"type": "web_search_tool_result", "content": [{"type": "web_search_result", "title": "Rust", "url": "https://rust-lang.org", "encrypted_content": "x"}]}),
                "[the web search found:\nRust\nhttps://rust-lang.org]",
            ),
            (
                json!({"type": "tool_reference", "tool_name": "Read"}),
                "[the tool Read]",
            ),
            (
                json!({"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "found"}]}),
                "T\ns\nfound",
            ),
            (
                json!({"type": "hologram"}),
                "[a block of the type \"hologram\", which this model can't see]",
            ),
        ] {
            assert_eq!(words(block), said);
        }
    }

    proptest! {
        #[test]
        fn headers_of_any_kind_do_no_harm(start in 0..6_usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let starts: [&[u8]; 6] = [b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\xff\0\0\0WEBPVP8X"];
            let data = BASE64_STANDARD.encode([starts[start], &bytes].concat());
            for pictures in [Pictures::Words, Pictures::Shown] {
                let _ = part(picture(&data), pictures);
            }
        }
    }
}
