//! Files as the client reads them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(bytes: impl AsRef<[u8]>) -> Result<Value, String> {
    object(bytes.as_ref()).map(Value::Object)
}

#[test]
fn what_the_client_reads_is_read() {
    let utf16: Vec<u8> = "{\"a\": \"ü\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let marked = [b"\xff\xfe", utf16.as_slice()].concat();
    for (bytes, wanted) in [
        (b"".to_vec(), json!({})),
        (b" \n".to_vec(), json!({})),
        (b"\xef\xbb\xbf{\"a\": 1}".to_vec(), json!({"a": 1})),
        (marked.clone(), json!({"a": "ü"})),
        ([marked.as_slice(), b" "].concat(), json!({"a": "ü"})),
        (b"{\"a\": \"\xfc\"}".to_vec(), json!({"a": "\u{fffd}"})),
        (b"{\"\xfc\": 1}".to_vec(), json!({"\u{fffd}": 1})),
        (br#"{"a": "\ud800x"}"#.to_vec(), json!({"a": "\u{fffd}x"})),
        (br#"{"a": "\ud83d\ude00"}"#.to_vec(), json!({"a": "😀"})),
        (br#"{"\u0065nv": 1}"#.to_vec(), json!({"env": 1})),
        (b"{\"a\": 1e999}".to_vec(), json!({"a": f64::MAX})),
        (b"{\"a\": -1e999}".to_vec(), json!({"a": f64::MIN})),
        (b"{\"a\": -0}".to_vec(), json!({"a": -0.0})),
        (b"{\"a\": 1, \"a\": 2}".to_vec(), json!({"a": 2})),
        (b"{\"a\": \"\x7f\"}\r\n".to_vec(), json!({"a": "\u{7f}"})),
    ] {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(read(&bytes), Ok(wanted), "{text}");
    }
}

#[test]
fn what_is_none_to_the_client_is_an_error() {
    let big_endian: Vec<u8> = "\u{feff}{}"
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let unmarked: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(read(big_endian).is_err() && read(unmarked).is_err());
    for text in [
        "\u{feff}\u{feff}{}",
        "{",
        "{}x",
        "{} {}",
        "{}\u{a0}",
        "\u{a0}{}",
        "\u{b}{}",
        "{}\0",
        "// x\n{}",
        "{\"a\": 1,}",
        "{'a': 1}",
        "{a: 1}",
        "{\"a\": NaN}",
        "{\"a\": 01}",
        "{\"a\": +1}",
        "{\"a\": .5}",
        "{\"a\": 1.}",
        "{\"a\": 1e}",
        "{\"a\": -}",
        "{\"a\": \"\t\"}",
        "{\"a\": \"\\x41\"}",
        "{\"a\": \"\\u00\"}",
        "{\"a\": \"\\u+041\"}",
        "{\"a\" 1}",
        "{\"a\": tru}",
        "[1 2]",
        "\"",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    assert_eq!(read("[]"), Err("it is not an object".into()));
    assert_eq!(read("{\n \"ü\": x}"), Err("line 2, column 7".into()));
}

#[test]
fn no_depth_is_too_deep() {
    for depth in [99, 500, 1_000_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let read = read(format!("{{\"a\": {deep}, \"b\": 1}}")).expect("an object");
        assert_eq!(read["b"], 1);
        let whole = read["a"].to_string().len() == deep.len();
        assert_eq!(whole, depth < 100);
    }
    assert!(read(format!("{{\"a\": {}", "[".repeat(1_000_000))).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300_f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_valid_reads_the_same(value in any_json(), pretty in any::<bool>()) {
        let value = json!({"a": value});
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        prop_assert_eq!(read(text), Ok(value));
    }

    /// A change of one byte makes it an error for both, or for neither.
    #[test]
    fn whatever_is_not_valid_is_an_error(value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = json!({"a": value}).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let strict = serde_json::from_slice::<Value>(&bytes);
        match (read(&bytes), strict) {
            (Ok(_), Ok(_)) => {}
            (Err(_), strict) => prop_assert!(strict.is_err() || !strict.is_ok_and(|value| value.is_object())),
            // More is taken only where characters or numbers are of no kind that Rust has.
            (Ok(_), Err(error)) => {
                let why = error.to_string();
                prop_assert!(["surrogate", "unicode", "hex escape", "out of range"].iter().any(|known| why.contains(known)), "{}", why);
            }
        }
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(bytes);
    }
}
