//! What comes from outside, made up: no panic, an answer that is defined, and no more memory than the input is worth. A few hundred cases with
//! the other tests; `bash .ci/run fuzz` takes many (`PROPTEST_CASES`).

mod files;
mod made_up;
mod requests;
mod streams;
