//! A Durable Object's SQLite, with what the binding lacks: a synchronous transaction that rolls back.

use serde::{Deserialize, de::DeserializeOwned};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use worker::{Error, Result, SqlStorage, SqlStorageValue, Storage};

#[wasm_bindgen]
extern "C" {
    type TransactionalStorage;

    #[wasm_bindgen(method, catch, js_name = transactionSync)]
    fn transaction_sync(
        this: &TransactionalStorage,
        body: &mut dyn FnMut() -> std::result::Result<(), JsValue>,
    ) -> std::result::Result<JsValue, JsValue>;
}

/// The object's database.
pub struct Database {
    storage: Storage,
    sql: SqlStorage,
}

impl Database {
    /// Opens it, and makes its tables if they are not there. `version` is that of the tables and of the JSON in them:
    /// a store of another version is not touched.
    pub fn open(storage: Storage, schema: &[&str], version: &str) -> Result<Self> {
        let sql = storage.sql();
        let database = Self { storage, sql };
        database
            .run("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID", vec![])?;
        match database.meta("version")? {
            None => database.set_meta("version", version)?,
            Some(found) if found == version => {}
            Some(found) => return Err(Error::RustError(format!("the store has version {found}, not {version}"))),
        }
        for statement in schema {
            database.run(statement, vec![])?;
        }
        Ok(database)
    }

    /// A value that is kept under a name.
    pub fn meta(&self, key: &str) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Row {
            value: String,
        }
        let row: Option<Row> = self.row("SELECT value FROM meta WHERE key = ? LIMIT 1", vec![text(key)])?;
        Ok(row.map(|row| row.value))
    }

    /// Keeps a value under a name.
    pub fn set_meta(&self, key: &str, value: impl Into<String>) -> Result<()> {
        self.run(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            vec![text(key), text(value)],
        )
    }

    /// Runs one statement without an answer.
    pub fn run(&self, statement: &str, bindings: Vec<SqlStorageValue>) -> Result<()> {
        self.sql.exec(statement, bindings).map(|_| ())
    }

    /// All rows of a query. The query bounds their number.
    pub fn rows<T: DeserializeOwned>(&self, query: &str, bindings: Vec<SqlStorageValue>) -> Result<Vec<T>> {
        self.sql.exec(query, bindings)?.to_array()
    }

    /// The first row of a query, if there is one.
    pub fn row<T: DeserializeOwned>(&self, query: &str, bindings: Vec<SqlStorageValue>) -> Result<Option<T>> {
        Ok(self.rows(query, bindings)?.into_iter().next())
    }

    /// Does all of `body` or nothing of it. `body` cannot await.
    pub fn transaction(&self, mut body: impl FnMut() -> Result<()>) -> Result<()> {
        let storage: &TransactionalStorage = self.storage.as_raw().unchecked_ref();
        storage
            .transaction_sync(&mut || body().map_err(|error| JsValue::from_str(&error.to_string())))
            .map(|_| ())
            .map_err(Error::from)
    }
}

/// Binds a text.
pub fn text(value: impl Into<String>) -> SqlStorageValue {
    SqlStorageValue::String(value.into())
}

/// Binds a text or null.
pub fn optional_text(value: Option<String>) -> SqlStorageValue {
    value.map_or(SqlStorageValue::Null, SqlStorageValue::String)
}

/// Binds an integer within ±(2^53 − 1).
pub fn integer(value: i64) -> Result<SqlStorageValue> {
    SqlStorageValue::try_from_i64(value)
}
