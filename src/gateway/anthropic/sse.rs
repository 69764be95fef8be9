//! Server-sent events, read as they come. Source of the format: the HTML standard, "Server-sent events".

/// Far more than any event of a reply, in bytes: a whole tool call is one event of this engine.
pub(super) const LARGEST_EVENT: usize = 16 << 20;

/// One event: its bytes as they came, blank line included, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub raw: &'a [u8],
    /// Empty if the event has no name.
    pub name: &'a [u8],
    /// The lines of data. Nearly always one.
    pub data: std::borrow::Cow<'a, [u8]>,
}

/// An event was larger than [`LARGEST_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Cuts a stream into events. Lines end in LF or CRLF.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    /// Where the event that is being read begins.
    start: usize,
    /// Where the line that is being read begins.
    line: usize,
    /// How far was looked for the line's end.
    seen: usize,
}

impl Reader {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // What was read is thrown away once for each piece, not for each event.
        self.buffer.drain(..self.start);
        self.line -= self.start;
        self.seen -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event. Blocks of comments alone are passed over.
    pub(super) fn next(&mut self) -> Result<Option<Event<'_>>, TooLarge> {
        loop {
            let Some(end) = self.buffer[self.seen..]
                .iter()
                .position(|byte| *byte == b'\n')
            else {
                self.seen = self.buffer.len();
                return if self.buffer.len() - self.start > LARGEST_EVENT {
                    Err(TooLarge)
                } else {
                    Ok(None)
                };
            };
            let end = self.seen + end;
            let is_blank = matches!(&self.buffer[self.line..end], b"" | b"\r");
            self.line = end + 1;
            self.seen = end + 1;
            if !is_blank {
                continue;
            }
            let start = std::mem::replace(&mut self.start, end + 1);
            if end - start > LARGEST_EVENT {
                return Err(TooLarge);
            }
            if has_data(&self.buffer[start..end]) {
                return Ok(Some(read(&self.buffer[start..=end])));
            }
        }
    }
}

fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    raw.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn has_data(raw: &[u8]) -> bool {
    lines(raw).any(|line| line.starts_with(b"data"))
}

fn read(raw: &[u8]) -> Event<'_> {
    let mut event = Event {
        raw,
        name: b"",
        data: std::borrow::Cow::Borrowed(b""),
    };
    let mut is_first = true;
    for line in lines(raw) {
        if let Some(name) = field(line, b"event") {
            event.name = name;
        } else if let Some(data) = field(line, b"data") {
            if is_first {
                event.data = std::borrow::Cow::Borrowed(data);
            } else {
                let joined = event.data.to_mut();
                joined.push(b'\n');
                joined.extend_from_slice(data);
            }
            is_first = false;
        }
    }
    event
}

/// The value of a line, if it is of this field. One space after the colon belongs to the colon.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = Reader::default();
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(piece);
            while let Some(event) = reader.next().expect("small") {
                events.push((
                    String::from_utf8_lossy(event.name).into_owned(),
                    String::from_utf8_lossy(&event.data).into_owned(),
                ));
            }
        }
        events
    }

    #[test]
    fn names_data_comments_and_line_ends() {
        let event = |name: &str, data: &str| (name.to_owned(), data.to_owned());
        assert_eq!(
            all(&[b": heartbeat\n\nevent: a\r\ndata: 1\r\n\r\nevent:b\ndata: x\ndata:y\n\ndata: z\n\nevent: n\n\n"]),
            [event("a", "1"), event("b", "x\ny"), event("", "z")]
        );
        assert_eq!(
            all(&[b"event: a\nda", b"ta: 1\n", b"", b"\nevent: b\ndata: 2\n\n"]),
            [event("a", "1"), event("b", "2")]
        );
        assert_eq!(all(&[b"event: a\ndata: 1\n"]), []);
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut reader = Reader::default();
        reader.push(&vec![b'x'; LARGEST_EVENT]);
        assert_eq!(reader.next(), Ok(None));
        reader.push(b"xx");
        assert_eq!(reader.next(), Err(TooLarge));
    }
}
