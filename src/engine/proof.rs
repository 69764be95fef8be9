//! The proof that an engine is the one that was started: it knows a key that went through its pipe and nowhere else. Asked once for each engine,
//! before it gets a prompt or the key to its requests. Pure.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::Result;
use crate::sys::secret::Secret;

/// Path of the challenge, as `listen.py` answers it.
const PATH: &str = "/cclocal/proof";
/// A block of SHA-256, in bytes.
const BLOCK: usize = 64;
/// The length of an answer: 256 bits in hexadecimal digits.
pub const LENGTH: u64 = 64;

/// Challenge with its one right answer. It is used once.
pub struct Challenge {
    query: String,
    answer: String,
}

impl Challenge {
    /// A new one. Errors: the system gives no randomness.
    pub fn new(key: &Secret) -> Result<Self> {
        let query = format!("nonce={}", Secret::random()?.expose());
        let answer = answer(key.expose(), &query);
        Ok(Self { query, answer })
    }

    /// Path and query of the request that asks it.
    pub fn target(&self) -> String {
        format!("{PATH}?{}", self.query)
    }

    pub fn accepts(&self, answer: &[u8]) -> bool {
        self.answer.as_bytes().ct_eq(answer).into()
    }
}

/// The right answer of an engine with this key to this query, in hexadecimal digits.
pub fn answer(key: &str, query: &str) -> String {
    let digest = hmac(key.as_bytes(), query.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message);
    let outer = Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner.finalize());
    outer.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test cases 1, 2, 3, 6 and 7 of RFC 4231.
    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let cases: [(&[u8], &[u8], &str); 5] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &[0xaa; 131],
                b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, message, wanted) in cases {
            let told: String = (hmac(key, message).iter())
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(told, wanted);
        }
    }

    #[test]
    fn an_answer_is_right_for_its_question_and_key_alone() {
        let key = Secret::new("k");
        let [one, other] = [&key, &key].map(|key| Challenge::new(key).expect("random"));
        assert_ne!(one.target(), other.target());
        assert!(one.accepts(one.answer.as_bytes()));
        assert_eq!(one.answer.len() as u64, LENGTH);
        assert!(!one.accepts(other.answer.as_bytes()));
        assert!(!one.accepts(b""));
        let elsewhere = answer("another", &one.query);
        assert!(!one.accepts(elsewhere.as_bytes()));
    }
}
