//! Holds `docs/compatibility.md` and the table of APIs together: what the page shows between its markers is made from the
//! table. Run with `OUZEL_REWRITE=1` to write it anew.

use std::fmt::Write;
use std::path::PathBuf;

use ouzel_protocol::api::APIS;

const BEGIN: &str = "<!-- begin apis -->\n";
const END: &str = "<!-- end apis -->";

fn table() -> String {
    let mut table = "| key | API | versions |\n|---|---|---|\n".to_owned();
    for api in APIS {
        let served = match api.served_min == api.min {
            true => String::new(),
            false => format!(", served from {}", api.served_min),
        };
        let _ = writeln!(table, "| {} | {} | {} to {}{served} |", api.key as i16, api.name, api.min, api.max);
    }
    table
}

/// The page with the table of this build between its markers.
fn with_table(page: &str) -> String {
    let from = page.find(BEGIN).expect("the page marks where the table begins") + BEGIN.len();
    let to = from + page[from..].find(END).expect("the page marks where the table ends");
    format!("{}\n{}\n{}", &page[..from], table(), &page[to..])
}

#[test]
fn the_page_shows_the_versions_that_are_served() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let expected = with_table(&page);
    if std::env::var_os("OUZEL_REWRITE").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(
        page == expected,
        "docs/compatibility.md does not show the table of APIs; OUZEL_REWRITE=1 cargo test -p ouzel-protocol --test \
         documentation writes it anew"
    );
}

#[test]
fn a_page_with_another_table_is_noticed() {
    let page = format!("before\n{BEGIN}\n| 0 | Produce | 0 to 12 |\n\n{END}\nbehind\n");
    let mended = with_table(&page);
    assert_ne!(mended, page);
    assert_eq!(with_table(&mended), mended);
    assert!(mended.starts_with("before\n") && mended.ends_with("\nbehind\n"));
}

/// The page went on to say that elections and reassignments do not exist when they had been served for weeks.
#[test]
fn what_the_page_calls_absent_is_not_served() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (_, rest) = page.split_once("<!-- begin absent -->").expect("the page marks where the list begins");
    let (absent, _) = rest.split_once("<!-- end absent -->").expect("the page marks where the list ends");
    let words: Vec<&str> = absent.split(|c: char| !c.is_alphanumeric()).collect();
    assert!(words.contains(&"EndTxn"), "{words:?}");
    let served: Vec<&str> = APIS.iter().map(|api| api.name).filter(|name| words.contains(name)).collect();
    assert_eq!(served, [""; 0]);
}
