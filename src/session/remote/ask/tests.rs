//! Answers of engines, case by case.

use super::*;

#[test]
fn windows_are_read_where_they_are_told() {
    let told = |list: &str| {
        let models = read_models(list.as_bytes()).expect("a list");
        let told = models.into_iter();
        told.map(|model| (model.id, model.window))
            .collect::<Vec<_>>()
    };
    let windows = |windows: &[(&str, Option<u64>)]| {
        let windows = windows.iter();
        windows
            .map(|(id, window)| ((*id).to_owned(), *window))
            .collect::<Vec<_>>()
    };
    let vllm = r#"{"object":"list","data":[
        {"id":"base","object":"model","owned_by":"vllm","root":"base","parent":null,"max_model_len":131072,"permission":[]},
        {"id":"adapter","object":"model","owned_by":"vllm","root":"/a","parent":"base","max_model_len":null},
        {"id":"other","parent":"nobody"}]}"#;
    let expected = [
        ("base", Some(131_072)),
        ("adapter", Some(131_072)),
        ("other", None),
    ];
    assert_eq!(told(vllm), windows(&expected));
    let llama_cpp = r#"{"models":[{"name":"m"}],"object":"list","data":[{"id":"m","aliases":["m"],"object":"model","owned_by":"llamacpp",
        "meta":{"vocab_type":2,"n_vocab":512,"n_ctx":16384,"n_ctx_train":262144,"n_embd":512,"n_params":669184,"size":2676736}}]}"#;
    assert_eq!(told(llama_cpp), windows(&[("m", Some(16_384))]));
    let older = r#"{"data":[{"id":"m","meta":{"n_ctx_train":262144}}]}"#;
    assert_eq!(told(older), windows(&[("m", None)]));
    let ray = r#"{"data":[{"id":"m","object":"model","owned_by":"organization-owner","permission":[],
        "metadata":{"model_id":"m","input_modality":"text","max_request_context_length":32768}}]}"#;
    assert_eq!(told(ray), windows(&[("m", Some(32_768))]));
    let litellm =
        r#"{"data":[{"id":"m","object":"model","owned_by":"openai","max_input_tokens":65536}]}"#;
    assert_eq!(told(litellm), windows(&[("m", Some(65_536))]));
    let odd = r#"{"data":[{"id":""},{"id":"a\u001b[2J"},{"id":"b\u0000"},{"id":"c","max_model_len":0,"meta":null,"metadata":[]}]}"#;
    assert_eq!(told(odd), windows(&[("c", None)]));
    for no_list in ["", "[]", "{}", r#"{"data":[{"name":"x"}]}"#, "<html>"] {
        assert_eq!(read_models(no_list.as_bytes()), None, "{no_list}");
    }
}
