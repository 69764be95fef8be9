//! Changes to the text of the settings file. Pure. All but the value that is meant stays as it is written: comments, order, spaces.

use std::ops::Range;

use super::key::Group;
use toml_edit::{Document, DocumentMut, InlineTable, Item, Table, TableLike, TomlError};

/// Place of a value in the file: a key at the top, or one in a table with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot<'a> {
    pub table: Option<(Group, &'a str)>,
    pub key: &'a str,
}

/// Sets a value. `value`: as TOML. Errors: the text is not TOML.
pub fn set(text: &str, spot: Spot<'_>, value: toml_edit::Value) -> Result<String, TomlError> {
    let document = Document::parse(text)?;
    if let Some((_, item)) = find(&document, spot)
        && let Some(place) = item.span()
    {
        let mut changed = text.to_owned();
        changed.replace_range(place, value.to_string().trim());
        return Ok(changed);
    }
    let mut document = document.into_mut();
    let is_empty = document.is_empty();
    match spot.table {
        // Behind the comments of a file that has nothing else.
        None if is_empty && !text.trim().is_empty() => {
            let before = if text.ends_with('\n') { "" } else { "\n" };
            return Ok(format!("{text}{before}{} = {value}\n", spot.key));
        }
        // With an empty line before the first table.
        None if text.starts_with('[') => {
            return Ok(format!("{} = {value}\n\n{text}", spot.key));
        }
        None => {
            document.insert(spot.key, Item::Value(value));
        }
        Some(table) => {
            if let Some(table) = table_of(&mut document, table, is_empty) {
                table.insert(spot.key, Item::Value(value));
            }
        }
    }
    Ok(document.to_string())
}

/// A table with a name, made if it is not there. None: there is something else in its place.
fn table_of<'d>(
    document: &'d mut DocumentMut,
    (group, name): (Group, &str),
    is_first: bool,
) -> Option<&'d mut dyn TableLike> {
    let models = document.entry(group.table()).or_insert_with(|| {
        let mut models = Table::new();
        models.set_implicit(true);
        Item::Table(models)
    });
    let is_inline = models.is_inline_table();
    let models = models.as_table_like_mut()?;
    let table = models.entry(name).or_insert_with(|| match is_inline {
        true => Item::Value(InlineTable::new().into()),
        false => {
            let mut table = Table::new();
            if !is_first {
                table.decor_mut().set_prefix("\n");
            }
            Item::Table(table)
        }
    });
    table.as_table_like_mut()
}

/// Takes a value out, with its line. None: it is not there. Errors: the text is not TOML.
pub fn unset(text: &str, spot: Spot<'_>) -> Result<Option<String>, TomlError> {
    let document = Document::parse(text)?;
    let Some((key, item)) = find(&document, spot) else {
        return Ok(None);
    };
    let places = key.span().zip(item.span());
    if let Some((key, value)) = places {
        let lines = lines(text, key.start..value.end);
        // In a table of one line others stand beside it.
        let rest = [&text[lines.start..key.start], &text[value.end..lines.end]];
        let is_alone = |rest: &str| rest.trim().is_empty() || rest.trim().starts_with('#');
        let has_header = rest[0].trim_end().ends_with('.');
        if (rest[0].trim().is_empty() || has_header) && is_alone(rest[1]) {
            return Ok(Some(without(text, lines)));
        }
    }
    let mut document = document.into_mut();
    let table = match spot.table {
        None => Some(document.as_table_mut() as &mut dyn TableLike),
        Some(table) => table_of(&mut document, table, false),
    };
    if let Some(table) = table {
        table.remove(spot.key);
    }
    Ok(Some(document.to_string()))
}

/// Takes a whole table with a name out. None: it is not there. Errors: the text is not TOML.
pub fn unset_table(text: &str, group: Group, name: &str) -> Result<Option<String>, TomlError> {
    let document = Document::parse(text)?;
    let table = document
        .get(group.table())
        .and_then(|tables| tables.get(name));
    let Some(table) = table else {
        return Ok(None);
    };
    // A table with a line of its own: from there to its last value.
    if let Some(table) = table.as_table()
        && let Some(header) = table.span()
        && text[header.clone()].starts_with('[')
    {
        let ends = table.iter().filter_map(|(_, item)| Some(item.span()?.end));
        let end = ends.fold(header.end, usize::max);
        return Ok(Some(without(text, lines(text, header.start..end))));
    }
    let mut document = document.into_mut();
    if let Some(tables) = (document.get_mut(group.table())).and_then(Item::as_table_like_mut) {
        tables.remove(name);
    }
    Ok(Some(document.to_string()))
}

fn find<'d>(
    document: &'d Document<&str>,
    spot: Spot<'_>,
) -> Option<(&'d toml_edit::Key, &'d Item)> {
    let top = document.as_table();
    match spot.table {
        None => top.get_key_value(spot.key),
        Some((group, name)) => {
            let tables = top.get(group.table())?.as_table_like()?;
            let table = tables.get(name)?.as_table_like()?;
            table.get_key_value(spot.key)
        }
    }
}

/// The whole lines of a place, with the end of the last.
fn lines(text: &str, place: Range<usize>) -> Range<usize> {
    let start = text[..place.start].rfind('\n').map_or(0, |end| end + 1);
    let end = text[place.end..]
        .find('\n')
        .map_or(text.len(), |end| place.end + end + 1);
    start..end
}

fn without(text: &str, place: Range<usize>) -> String {
    [&text[..place.start], &text[place.end..]].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::Settings;
    use crate::settings::key::{self, KEYS, Kind};

    const TOP: fn(&str) -> Spot<'_> = |key| Spot { table: None, key };

    fn of_work(key: &str) -> Spot<'_> {
        Spot {
            table: Some((Group::Models, "work")),
            key,
        }
    }

    const FILE: &str = "# Mine.\n\nctx = 30000 # wide enough\n\n# Long replies.\nout-tokens   = 2048\n\n# For work.\n[models.work]\nid = 'org/name' # good\nvision=true\n# The end.\n";

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        let changed = set(FILE, TOP("ctx"), "64k".into()).expect("TOML");
        assert_eq!(changed, FILE.replace("30000", "\"64k\""));
        let changed = set(FILE, of_work("vision"), false.into()).expect("TOML");
        assert_eq!(changed, FILE.replace("true", "false"));
    }

    #[test]
    fn a_new_value_stands_with_the_others() {
        insta::assert_snapshot!(set(FILE, TOP("linger"), 60.into()).expect("TOML"), @"
        # Mine.

        ctx = 30000 # wide enough

        # Long replies.
        out-tokens   = 2048
        linger = 60

        # For work.
        [models.work]
        id = 'org/name' # good
        vision=true
        # The end.
        ");
        insta::assert_snapshot!(set(FILE, of_work("ctx"), "32k".into()).expect("TOML"), @r#"
        # Mine.

        ctx = 30000 # wide enough

        # Long replies.
        out-tokens   = 2048

        # For work.
        [models.work]
        id = 'org/name' # good
        vision=true
        ctx = "32k"
        # The end.
        "#);
        let home = Spot {
            table: Some((Group::Models, "home")),
            key: "folder",
        };
        insta::assert_snapshot!(set(FILE, home, "~/one".into()).expect("TOML"), @r#"
        # Mine.

        ctx = 30000 # wide enough

        # Long replies.
        out-tokens   = 2048

        # For work.
        [models.work]
        id = 'org/name' # good
        vision=true

        [models.home]
        folder = "~/one"
        # The end.
        "#);
        assert_eq!(
            set("", home, "~/one".into()).expect("TOML"),
            "[models.home]\nfolder = \"~/one\"\n"
        );
        assert_eq!(
            set("[models.home]\nid = 'a/b'\n", TOP("port"), 1.into()).expect("TOML"),
            "port = 1\n\n[models.home]\nid = 'a/b'\n"
        );
        assert_eq!(
            set("# Mine.", TOP("port"), 1.into()).expect("TOML"),
            "# Mine.\nport = 1\n"
        );
        assert_eq!(
            set(
                "models = { work = { id = 'a/b' } }\n",
                of_work("think"),
                true.into()
            )
            .expect("TOML"),
            "models = { work = { id = 'a/b' , think = true } }\n"
        );
        assert_eq!(
            set("models.work.id = 'a/b'\n", of_work("think"), true.into()).expect("TOML"),
            "models.work.id = 'a/b'\nmodels.work.think = true\n"
        );
    }

    #[test]
    fn a_value_is_taken_out_with_its_line() {
        let without = |spot| unset(FILE, spot).expect("TOML").expect("there");
        assert_eq!(
            without(TOP("ctx")),
            FILE.replace("ctx = 30000 # wide enough\n", "")
        );
        assert_eq!(
            without(of_work("vision")),
            FILE.replace("vision=true\n", "")
        );
        assert_eq!(unset(FILE, TOP("port")).expect("TOML"), None);
        assert_eq!(
            unset(
                "models.work.id = 'a/b'\nmodels.work.think = true",
                of_work("think")
            )
            .expect("TOML"),
            Some("models.work.id = 'a/b'\n".into())
        );
        assert_eq!(
            unset(
                "models = { work = { id = 'a/b', think = true } }\n",
                of_work("think")
            )
            .expect("TOML"),
            Some("models = { work = { id = 'a/b'} }\n".into())
        );
        assert_eq!(
            unset_table(FILE, Group::Models, "work").expect("TOML"),
            Some(FILE.replace("[models.work]\nid = 'org/name' # good\nvision=true\n", ""))
        );
        assert_eq!(
            unset_table(FILE, Group::Models, "home").expect("TOML"),
            None
        );
        assert_eq!(
            unset_table(
                "models = { work = { id = 'a/b' } }\n",
                Group::Models,
                "work"
            )
            .expect("TOML"),
            Some("models = {}\n".into())
        );
        set("x", TOP("port"), 1.into()).expect_err("no TOML");
        unset("x", TOP("port")).expect_err("no TOML");
    }

    /// A key that can be set, with a value as it is typed.
    fn setting() -> impl Strategy<Value = (&'static str, bool, String)> {
        let of_key = |key: &'static key::Key| {
            let value = match key.kind {
                Kind::Switch => any::<bool>().prop_map(|on| on.to_string()).boxed(),
                Kind::Tokens { least, most, .. } => prop_oneof![
                    (least..=most).prop_map(|count| count.to_string()),
                    (least.div_ceil(1_024)..=most / 1_024).prop_map(|count| format!("{count}k")),
                ]
                .boxed(),
                Kind::Seconds { most } => (0..=most).prop_map(|count| count.to_string()).boxed(),
                Kind::Port => any::<u16>()
                    .prop_map(|port| port.max(1).to_string())
                    .boxed(),
                Kind::OneOf(words) => proptest::sample::select(words)
                    .prop_map(str::to_owned)
                    .boxed(),
                Kind::Service => "(brave|off|https://[a-z]{1,9}\\.example/[a-z']{0,5})".boxed(),
                _ => "(gemma|coder|[a-z]{1,8}/[A-Za-z0-9]{1,8}|/[a-z \"'#\\\\]{1,9})".boxed(),
            };
            (
                Just(key.name),
                any::<bool>().prop_map(move |own| own && key.per_model),
                value,
            )
        };
        proptest::sample::select(KEYS).prop_flat_map(move |key| {
            let key = key::at_top(key.name).expect("itself");
            of_key(key)
        })
    }

    proptest! {
        #[test]
        fn a_value_that_is_set_is_read_again_and_the_rest_is_untouched((key, own, typed) in setting()) {
            let spot = if own { of_work(key) } else { TOP(key) };
            let known = key::at_top(key).expect("a key");
            let (value, written) = known.kind.typed(&typed).expect("a value");
            let changed = set(FILE, spot, written).expect("TOML");
            let settings = Settings::parse(&changed).expect("good");
            let values = match own {
                true => &settings.models[0].values,
                false => &settings.values,
            };
            prop_assert_eq!(&values[key].value, &value);
            // Every line that is not of this key is there, in its order.
            let is_other = |line: &&str| !line.starts_with(key);
            let before: Vec<&str> = FILE.lines().filter(is_other).collect();
            let after: Vec<&str> = changed.lines().filter(is_other).collect();
            prop_assert_eq!(before, after);
            let again = unset(&changed, spot).expect("TOML").expect("there");
            let settings = Settings::parse(&again).expect("good");
            let left = if own { &settings.models[0].values } else { &settings.values };
            prop_assert!(!left.contains_key(key));
        }
    }
}
