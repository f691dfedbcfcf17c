//! A story of the README: files and commands, as the reader sees them, to be run as they stand.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

/// What a section of the README has its reader write and run.
#[derive(Debug, Default)]
pub struct Story {
    /// Files by name.
    pub files: Vec<(String, String)>,
    /// Where each command runs, and the command, in order.
    commands: VecDeque<(String, String)>,
}

impl Story {
    /// Reads the section of this heading: indented blocks are files, whose first line is `# NAME`, or commands, each
    /// after its machine's prompt, like `host$ `.
    ///
    /// # Panics
    /// When the README has no such section, or a block that is neither.
    #[must_use]
    pub fn of(heading: &str) -> Self {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let readme = fs::read_to_string(readme).expect("the README");
        let section = readme.split_once(&format!("## {heading}\n")).expect("the section").1;
        let section = section.split("\n## ").next().expect("a first part");
        let mut story = Self::default();
        for block in section.split("\n\n").filter(|block| block.trim_matches('\n').starts_with("    ")) {
            let lines: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("    ")).collect();
            match lines.split_first() {
                Some((first, rest)) if first.starts_with("# ") => {
                    story.files.push((first[2..].to_owned(), rest.join("\n") + "\n"));
                }
                Some(_) => story.commands.extend(lines.iter().map(|line| {
                    let (place, command) = line.split_once("$ ").unwrap_or_else(|| panic!("no prompt: {line}"));
                    (place.to_owned(), command.split("  #").next().unwrap_or(command).trim_end().to_owned())
                })),
                None => {}
            }
        }
        story
    }

    /// The words of the next command, which must be this one.
    ///
    /// # Panics
    /// When the README says something else here.
    pub fn words(&mut self, place: &str, command: &str) -> Vec<String> {
        let told = self.commands.pop_front().expect("the README ends before");
        assert_eq!(told, (place.to_owned(), command.to_owned()), "the README and its test differ");
        command.split_whitespace().skip(1).map(str::to_owned).collect()
    }

    /// # Panics
    /// When the README goes on.
    pub fn end(self) {
        assert!(self.commands.is_empty(), "no test runs {:?}", self.commands);
    }
}
