//! The settings file, case by case.

use super::*;

fn refused(text: &str) -> String {
    let fault = Settings::parse(text).expect_err(text);
    fault.error("~/config.toml").to_string()
}

#[test]
fn a_whole_file_is_read() {
    let text = "model = 'work'\nctx = '64k'\n[models.work]\nid = 'org/name'\nparser = 'mistral'\nctx = 0x8000\n[models.home]\nfolder = '~/models/one'\n";
    let settings = Settings::parse(text).expect("good");
    assert_eq!(settings.values["ctx"].value, Value::Number(65_536));
    assert_eq!(settings.values["ctx"].line, 2);
    let [work, home] = &settings.models[..] else {
        panic!("two models");
    };
    assert_eq!(work.place, Place::Id("org/name".into()));
    assert_eq!(work.form, Some(Form::Mistral));
    assert_eq!(work.values["ctx"].value, Value::Number(32_768));
    assert_eq!(home.place, Place::Folder("~/models/one".into()));
    let text =
        "[remotes.status]\nurl = 'https://llm.example'\ntoken-env = 'TEAM_KEY'\nctx = '64k'\n";
    let settings = Settings::parse(text).expect("good");
    let remote = settings.remote("status").expect("its own kind of name");
    assert_eq!(remote.url, "https://llm.example");
    assert_eq!(remote.word("token-env").as_deref(), Some("TEAM_KEY"));
    assert_eq!(remote.number("ctx"), Some(65_536));
    let nothing = Settings::parse("# nothing\n");
    assert_eq!(nothing, Ok(Settings::default()));
}

#[test]
fn the_default_is_a_model_that_can_be() {
    for good in ["gemma", "light", "org/name", "/models/one", "~/models/one"] {
        let text = format!("model = '{good}'");
        assert!(Settings::parse(&text).is_ok(), "{good}");
    }
}

#[test]
fn each_fault_is_said_with_its_line() {
    insta::assert_snapshot!(refused("ctx = '64k'\nwindow = 3"), @"
    error: ~/config.toml has an unknown key `window`
      cause: line 2: there is no such setting
      hint: perhaps `ctx`; to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("colour = true"), @"
    error: ~/config.toml has an unknown key `colour`
      cause: line 1: there is no such setting
      hint: `cclocal config` lists the keys; to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("ctx = 'wide'"), @r#"
    error: ~/config.toml has a wrong value of `ctx`
      cause: line 1: it is "auto", or 20480 to 1000000 tokens; "64k" is a number, too
      hint: to open the file: cclocal config edit
    "#);
    insta::assert_snapshot!(refused("ctx = 30000\nctx = 40000"), @"
    error: ~/config.toml is not valid TOML
      cause: line 2: duplicate key
      hint: to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("ctx ="), @"
    error: ~/config.toml is not valid TOML
      cause: line 1: string values must be quoted, expected literal string
      hint: words stand in quotes, and 64k does, too; to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("model = 'wrk'\n[models.work]\nid = 'org/name'"), @r#"
    error: ~/config.toml has a wrong value of `model`
      cause: line 1: it is a flag such as "gemma", a name of [models], a hub id or a folder
      hint: perhaps "work"; to open the file: cclocal config edit
    "#);
    insta::assert_snapshot!(refused("models = 3"), @"
    error: ~/config.toml has a wrong value of `models`
      cause: line 1: it is a table: [models.NAME], and its keys below
      hint: to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("[models.one]\nid = 'org/name'\nweb-search = 'brave'"), @"
    error: ~/config.toml has an unknown key `models.one.web-search`
      cause: line 3: a model has no such setting
      hint: `web-search` stands at the top of the file, for all models; to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("[models.one]\npath = '/models/one'"), @"
    error: ~/config.toml has an unknown key `models.one.path`
      cause: line 2: a model has no such setting
      hint: perhaps `folder`; to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("\n[models.one]\nctx = 30000"), @r#"
    error: ~/config.toml has a model `one` that is not complete
      cause: line 2: it has neither an id nor a folder
      hint: such as [models.one] with id = "org/name"; to open the file: cclocal config edit
    "#);
    insta::assert_snapshot!(refused("[models.one]\nid = 'org/name'\nfolder = '/models/one'"), @r#"
    error: ~/config.toml has a model `one` that is not complete
      cause: line 1: it has an id and a folder, and it is one of them
      hint: such as [models.one] with id = "org/name"; to open the file: cclocal config edit
    "#);
    insta::assert_snapshot!(refused("[remotes.team]\nmodel = 'one'"), @r#"
    error: ~/config.toml has a remote `team` that is not complete
      cause: line 1: it has no url
      hint: such as [remotes.team] with url = "https://llm.example"; to open the file: cclocal config edit
    "#);
    insta::assert_snapshot!(refused("[remotes.team]\nurl = 'https://llm.example'\ntoken = 'sk-1'"), @"
    error: ~/config.toml has an unknown key `remotes.team.token`
      cause: line 3: a remote has no such setting
      hint: perhaps `token-env`; to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("[models.gemma]\nid = 'org/name'"), @"
    error: ~/config.toml has a model that cannot be called `gemma`
      cause: line 1: --gemma is a model of the catalogue
      hint: to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("[models.status]\nid = 'org/name'"), @"
    error: ~/config.toml has a model that cannot be called `status`
      cause: line 1: `cclocal status` is a command, or may become one
      hint: to open the file: cclocal config edit
    ");
    insta::assert_snapshot!(refused("[models.'Big One']\nid = 'org/name'"), @"
    error: ~/config.toml has a model that cannot be called `Big One`
      cause: line 1: a name starts with a letter, has a to z, 0 to 9, `-`, `_` and `.`, and 24 characters at most
      hint: to open the file: cclocal config edit
    ");
}
