//! The token of an engine that somebody else runs. It comes from a variable, and the variable stays here.

use std::ffi::OsStr;

use crate::error::{Error, Result};
use crate::sys::environment::Environment;
use crate::sys::secret::Secret;

/// A value that is shorter may be in other variables for other reasons.
const SURELY_A_TOKEN: usize = 8;

/// Takes the token out of the variable, and every variable that holds it out of the host: nothing that is started gets it. Errors: there is none.
pub fn take(host: &mut Environment, variable: &str) -> Result<Secret> {
    // What was typed is not repeated: it may be the token itself.
    take_out(host, variable).map_err(|cause| {
        Error::usage("the variable of --token-env holds no token")
            .cause(cause)
            .hint("--token-env takes a variable's name, such as VLLM_KEY; from a file: VLLM_KEY=$(cat FILE) cclocal --connect URL --token-env VLLM_KEY")
    })
}

/// The same for any variable. Errors: why there is none, in words.
pub fn take_out(host: &mut Environment, variable: &str) -> Result<Secret, &'static str> {
    let Some(value) = host.env.get(OsStr::new(variable)) else {
        return Err("it is not set");
    };
    let token = value.to_str().map(str::trim).unwrap_or("\0").to_owned();
    if token.is_empty() {
        return Err("it is empty");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it contains a space, a line break or another character that no token has");
    }
    host.env.retain(|name, value| {
        let same = || value.to_str().map(str::trim) == Some(&token);
        name != variable && (token.len() < SURELY_A_TOKEN || !same())
    });
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(vars: &[(&str, &str)]) -> Environment {
        Environment::for_tests(std::path::Path::new("/home/someone"), vars)
    }

    #[test]
    fn the_token_is_taken_and_does_not_stay() {
        let mut host = host(&[
            ("KEY", " sk-12345678\n"),
            ("COPY", "sk-12345678"),
            ("A", "1"),
        ]);
        let token = take(&mut host, "KEY").expect("a token");
        assert_eq!(token.expose(), "sk-12345678");
        let left: Vec<_> = host.env.keys().collect();
        assert_eq!(left, ["A"]);
    }

    #[test]
    fn a_short_one_takes_nothing_else_with_it() {
        let mut host = host(&[("KEY", "1"), ("A", "1")]);
        assert_eq!(take(&mut host, "KEY").expect("a token").expose(), "1");
        assert_eq!(host.env.keys().collect::<Vec<_>>(), ["A"]);
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let refused = |value: Option<&str>| {
            let vars: Vec<_> = value.map(|value| ("sk-typed", value)).into_iter().collect();
            let error = take(&mut host(&vars), "sk-typed").expect_err("none");
            assert!(!error.to_string().contains("sk-typed"));
            error.to_string()
        };
        insta::assert_snapshot!(refused(None), @"
        error: the variable of --token-env holds no token
          cause: it is not set
          hint: --token-env takes a variable's name, such as VLLM_KEY; from a file: VLLM_KEY=$(cat FILE) cclocal --connect URL --token-env VLLM_KEY
        ");
        insta::assert_snapshot!(refused(Some(" \n")), @"
        error: the variable of --token-env holds no token
          cause: it is empty
          hint: --token-env takes a variable's name, such as VLLM_KEY; from a file: VLLM_KEY=$(cat FILE) cclocal --connect URL --token-env VLLM_KEY
        ");
        insta::assert_snapshot!(refused(Some("two words")), @"
        error: the variable of --token-env holds no token
          cause: it contains a space, a line break or another character that no token has
          hint: --token-env takes a variable's name, such as VLLM_KEY; from a file: VLLM_KEY=$(cat FILE) cclocal --connect URL --token-env VLLM_KEY
        ");
        assert_eq!(refused(Some("two\nlines")), refused(Some("schlüssel")));
    }
}
