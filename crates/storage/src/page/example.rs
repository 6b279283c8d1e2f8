//! The example bytes of `FORMAT.md`, for tests that decode them.

/// The bytes of the example `name`: in its block, what stands before two spaces in each line.
pub(crate) fn example(name: &str) -> Vec<u8> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/FORMAT.md"));
    let mark = format!("<!-- example: {name} -->");
    let start = text.find(&mark).unwrap_or_else(|| panic!("FORMAT.md has no example {name}"));
    let block = text[start..].split("```").nth(1).unwrap_or_else(|| panic!("example {name} has no block"));
    let hex: Vec<&str> =
        block.lines().flat_map(|line| line.split("  ").next()).flat_map(str::split_whitespace).collect();
    hex.iter()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|e| panic!("{byte} of example {name}: {e}")))
        .collect()
}
