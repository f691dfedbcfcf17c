//! What a demo run says of itself: a table on the terminal, two CSV files, a page, and whether its claims held.

mod comparison;
mod curves;
mod delays;
mod drawing;
#[cfg(test)]
mod example;
mod figure;
mod files;
mod page;
mod picture;
mod summary;
mod terminal;
mod verdict;

pub(crate) use files::csv;
pub(crate) use page::html;
pub(crate) use terminal::table;
pub(crate) use verdict::verdict;
