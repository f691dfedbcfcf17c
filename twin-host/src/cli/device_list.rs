//! The list of devices to enrol: CSV with a column `device`, and `board` where scripts/deploy is to know them.

use std::collections::BTreeSet;
use std::path::Path;

use twin_shared::id::DeviceId;

/// The inventory's name in the folder of folders.
pub(super) const INVENTORY: &str = "inventory.csv";

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) device: DeviceId,
    /// Where its board is reached by SSH.
    pub(super) board: Option<String>,
}

/// Reads a list; what is wrong with it in one line.
pub(super) fn read(path: &Path) -> Result<Vec<Listed>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Listed>, String> {
    let mut lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
    let columns: Vec<&str> = lines.next().map(|(_, line)| fields(line)).unwrap_or_default();
    let column = |name: &str| columns.iter().position(|column| *column == name);
    let device_at = column("device").ok_or("its first line must name its columns, and one of them \"device\"")?;
    let board_at = column("board");
    let (mut listed, mut seen) = (Vec::new(), BTreeSet::new());
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields = fields(line);
        if fields.len() != columns.len() {
            return Err(format!("line {number}: {} fields, where the first line has {}", fields.len(), columns.len()));
        }
        let name = fields[device_at];
        let device: DeviceId = name.parse().map_err(|error| format!("line {number}: {name:?}: {error}"))?;
        if !seen.insert(device.clone()) {
            return Err(format!("line {number}: {device} is named twice"));
        }
        let board = board_at.map(|at| fields[at].to_owned()).filter(|board| !board.is_empty());
        listed.push(Listed { device, board });
    }
    if listed.is_empty() { Err("no devices".into()) } else { Ok(listed) }
}

/// Names and addresses hold neither commas nor line breaks; quotes around them are what spreadsheets write.
fn fields(line: &str) -> Vec<&str> {
    line.split(',').map(|field| field.trim().trim_matches('"').trim()).collect()
}

/// What scripts/deploy takes, for those whose board is known; folders are relative to it.
pub(super) fn inventory(devices: &[Listed]) -> Option<String> {
    let lines = devices.iter().filter_map(|listed| Some(format!("{},{}\n", listed.board.as_ref()?, listed.device)));
    let lines: String = lines.collect();
    (!lines.is_empty()).then(|| format!("board,folder\n{lines}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_the_inventory_has_who_is_reached() {
        let listed = parse("\u{feff}room, board,\"device\"\nhall,pi@a.local,pi-1\n\nattic,,pi-2\r\n").unwrap();
        let names: Vec<&str> = listed.iter().map(|listed| listed.device.as_str()).collect();
        assert_eq!(names, ["pi-1", "pi-2"]);
        assert_eq!(inventory(&listed).unwrap(), "board,folder\npi@a.local,pi-1\n");
        assert_eq!(inventory(&listed[1..]), None);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        for (text, named) in [
            ("", "\"device\""),
            ("name\npi\n", "\"device\""),
            ("device\n", "no devices"),
            ("device,board\npi\n", "line 2: 1 fields"),
            ("device\npi\nPi4\n", "line 3: \"Pi4\""),
            ("device\npi\npi\n", "line 3: pi is named twice"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
