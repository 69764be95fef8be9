//! The reader of PDFs, which is a process of its own, with PDFs that were made to harm it.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pdf_extract::{Document, EncryptionState, EncryptionVersion, Permissions};

use crate::support::pdf::{objects, of_objects, pdf};

/// Its status, None if it was ended by a signal, and what it wrote.
fn read(input: &[u8]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cclocal"))
        .arg("read-pdf")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(input).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code(), text)
}

fn read_pdf(pdf: &[u8]) -> (Option<i32>, String) {
    read(BASE64_STANDARD.encode(pdf).as_bytes())
}

#[test]
fn the_text_of_each_page_is_read() {
    let pages = pdf(&["Hello, \\(PDF\\)", "", "The last page"]);
    let expected = "3\n\"Hello, (PDF)\"\n\"\"\n\"The last page\"\n";
    assert_eq!(read_pdf(&pages), (Some(0), expected.into()));
}

#[test]
fn a_long_pdf_is_not_read_to_its_end() {
    let page = "BT /F 2 Tf (0123456789) Tj ET ".repeat(4_000);
    let (status, text) = read_pdf(&of_objects(&objects(&vec![page; 5], "")));
    assert_eq!(status, Some(0));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "5");
    assert_eq!(lines.len(), 3);
    assert!(text.len() > 60_000 && text.len() < 62_000, "{}", text.len());
}

#[test]
fn what_is_no_pdf_is_broken() {
    let whole = pdf(&["Hello"]);
    for bytes in [&b""[..], b"%PDF-1.7\n", b"hello", &whole[..100]] {
        assert_eq!(read_pdf(bytes), (Some(5), String::new()));
    }
    assert_eq!(read(b"?"), (Some(5), String::new()));
}

#[test]
fn a_pdf_with_a_password_says_so_and_one_without_is_read() {
    for (password, expected) in [
        ("secret", (Some(4), String::new())),
        ("", (Some(0), "1\n\"Hello\"\n".into())),
    ] {
        let mut document = Document::load_mem(&pdf(&["Hello"])).expect("a PDF");
        let id = pdf_extract::Object::string_literal("an id");
        document.trailer.set("ID", vec![id.clone(), id]);
        let version = EncryptionVersion::V2 {
            document: &document,
            owner_password: "owner",
            user_password: password,
            key_length: 128,
            permissions: Permissions::all(),
        };
        let state = EncryptionState::try_from(version).expect("a way to encrypt");
        document.encrypt(&state).expect("encrypted");
        let mut bytes = Vec::new();
        document.save_to(&mut bytes).expect("saved");
        assert_eq!(read_pdf(&bytes), expected);
    }
}

#[test]
fn a_hostile_pdf_harms_its_reader_alone() {
    let text = |object: &str| object.to_owned();
    let catalogue = text("<< /Type /Catalog /Pages 2 0 R >>");
    // A form that is part of itself, behind a page that can be read.
    let contents = ["BT /F 24 Tf (Hello) Tj ET".into(), "/X Do".into()];
    let resources = "/XObject << /X 8 0 R >>";
    let mut recursive = objects(&contents, resources);
    recursive.push(format!(
        "<< /Type /XObject /Subtype /Form /BBox [0 0 1 1] /Resources << {resources} >> /Length 5 >>\nstream\n/X Do\nendstream"
    ));
    let (status, said) = read_pdf(&of_objects(&recursive));
    assert_ne!(status, Some(0));
    assert_eq!(said, "2\n\"Hello\"\n");

    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    for objects in [
        vec![
            catalogue.clone(),
            text("<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 99999999 >>"),
        ],
        vec![
            catalogue.clone(),
            text("<< /Type /Pages /Parent 2 0 R /Kids [3 0 R] /Count 1 >>"),
            text("<< /Type /Page /Parent 2 0 R >>"),
        ],
        vec![
            format!("<< /Type /Catalog /Pages 2 0 R /X {deep} >>"),
            text("<< /Kids [] /Count 0 >>"),
        ],
    ] {
        let (status, said) = read_pdf(&of_objects(&objects));
        assert_ne!(status, Some(0), "{said}");
    }
    let operands = format!("BT {} TJ ET", "[".repeat(1_000_000));
    let (_, said) = read_pdf(&of_objects(&objects(&[operands], "")));
    assert_eq!(said, "1\n\"\"\n");
}
