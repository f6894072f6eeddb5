//! A Durable Object's SQLite, with what the binding lacks: a synchronous transaction that rolls back.

use serde::de::DeserializeOwned;
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
    /// Opens it.
    pub fn new(storage: Storage) -> Self {
        let sql = storage.sql();
        Self { storage, sql }
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
