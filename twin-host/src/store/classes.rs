//! The list of classes: names in a fixed order, only ever appended to.

use twin_data::classes::ClassList;

use super::{Store, StoreError};

impl Store {
    /// The present list; empty and of version 0 where nothing was listed yet.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn classes(&self) -> Result<ClassList, StoreError> {
        let sql = "SELECT name, version FROM class ORDER BY position";
        let mut statement = self.asked(self.records.prepare(sql))?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?)));
        let rows = self.asked(rows)?.map(|row| self.asked(row)).collect::<Result<Vec<_>, _>>()?;
        let version = rows.iter().map(|(_, version)| *version).max().unwrap_or(0);
        let names = rows.into_iter().map(|(name, _)| name).collect();
        ClassList::new(version, names).map_err(|error| self.damaged(format!("the list of classes ({error})")))
    }

    /// Appends classes: all of them, or none.
    ///
    /// # Errors
    /// When a name is none, is there already or is another spelling of one, or the database refuses.
    pub fn add_classes(&mut self, names: Vec<String>) -> Result<ClassList, StoreError> {
        let list = self.classes()?.with(names)?;
        let path = self.root.join("twin.sqlite");
        let mut write = || {
            let transaction = self.records.transaction()?;
            let present: i64 = transaction.query_row("SELECT count(*) FROM class", [], |row| row.get(0))?;
            for (position, name) in (0i64..).zip(list.names()).filter(|(position, _)| *position >= present) {
                let sql = "INSERT INTO class (position, name, version) VALUES (?1, ?2, ?3)";
                transaction.execute(sql, rusqlite::params![position, name, list.version()])?;
            }
            transaction.commit()
        };
        write().map_err(|error| StoreError::Records { path, error })?;
        Ok(list)
    }
}
