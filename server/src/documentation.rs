//! Holds `docs/operations.md` and the tables of the program together: what the page shows between its markers is made
//! from the tables. Run the tests with `OUZEL_REWRITE=1` to write it anew.

use std::fmt::Write;
use std::path::PathBuf;

use ouzel_metadata::configs::{BROKER_CONFIGS, Effect};

use crate::admin::ENDPOINTS;
use crate::config::Name;
use crate::metrics::FAMILIES;

fn flags() -> String {
    let mut table = "| flag | environment | default |\n|---|---|---|\n".to_owned();
    for name in Name::ALL {
        let _ = writeln!(table, "| `--{}` | `{}` | {} |", name.word(), name.variable(), name.default_words());
    }
    table
}

fn keys() -> String {
    let mut table = "| key | default | |\n|---|---|---|\n".to_owned();
    for def in BROKER_CONFIGS.iter().filter(|def| def.effect == Effect::Works) {
        let default = def.default.map_or_else(|| "not set".to_owned(), |text| format!("`{text}`"));
        let _ = writeln!(table, "| `{}` | {default} | {} |", def.name, def.doc.replace('|', "\\|"));
    }
    table
}

fn keys_without_effect() -> String {
    let mut table = "| key | why |\n|---|---|\n".to_owned();
    for def in BROKER_CONFIGS {
        if let Effect::Nothing(why) = def.effect {
            let _ = writeln!(table, "| `{}` | {why} |", def.name);
        }
    }
    table
}

fn endpoints() -> String {
    let mut table = "| path | answers |\n|---|---|\n".to_owned();
    for (path, answers) in ENDPOINTS {
        let _ = writeln!(table, "| `{path}` | {answers} |");
    }
    table
}

fn metrics() -> String {
    let mut table = "| metric | type | labels | |\n|---|---|---|---|\n".to_owned();
    for family in FAMILIES {
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ =
            writeln!(table, "| `{}` | {} | {labels} | {} |", family.name, family.kind.word(), family.help);
    }
    table
}

#[test]
fn the_page_shows_the_tables_of_the_program() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut expected = page.clone();
    for (name, table) in [
        ("flags", flags()),
        ("keys", keys()),
        ("keys without effect", keys_without_effect()),
        ("endpoints", endpoints()),
        ("metrics", metrics()),
    ] {
        let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
        let from =
            expected.find(&begin).unwrap_or_else(|| panic!("{begin} is not in the page")) + begin.len();
        let to = from + expected[from..].find(&end).unwrap_or_else(|| panic!("{end} is not in the page"));
        expected.replace_range(from..to, &format!("\n{table}\n"));
    }
    if std::env::var_os("OUZEL_REWRITE").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(
        page == expected,
        "docs/operations.md does not show the program's tables; OUZEL_REWRITE=1 cargo test -p ouzel writes it anew"
    );
}
