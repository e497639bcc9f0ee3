//! `docs/flags.md` is generated from the command line definitions.

use std::{fs, path::Path, process::Command};

#[test]
fn flag_reference_is_up_to_date() {
    let output = Command::new(env!("CARGO_BIN_EXE_kuik")).arg("flags").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/flags.md");
    let committed = fs::read_to_string(path).unwrap();
    assert_eq!(committed, String::from_utf8(output.stdout).unwrap(), "run make flags");
}
