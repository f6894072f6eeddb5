//! What the service is measured against: a Worker that makes the same hops and decides nothing.
//!
//! `execute`: account, pool, downstream worker, pool, and from there the account. `reserve`: account, pool. `consume`:
//! pool, and from there the account. Each call to an object writes one row.

use worker::{
    Context, DurableObject, Env, Headers, Method, Request, RequestInit, Response, Result, SqlStorageValue, State,
    durable_object, event,
};

const BODY: &str = r#"{"requestId":"01m85jda95jevgwq9he4bpqxny_database-d1","amount":1}"#;

fn post(path: &str) -> Result<Request> {
    let headers = Headers::new();
    headers.set("content-type", "application/json")?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_body(Some(BODY.into()));
    Request::new_with_init(&format!("https://object{path}"), &init)
}

async fn call(env: &Env, binding: &str, path: &str) -> Result<String> {
    let stub = env.durable_object(binding)?.id_from_name("one")?.get_stub()?;
    stub.fetch_with_request(post(path)?).await?.text().await
}

#[event(fetch)]
async fn fetch(mut request: Request, env: Env, _context: Context) -> Result<Response> {
    request.text().await?;
    match request.path().as_str() {
        "/execute" => {
            call(&env, "ACCOUNT", "/write").await?;
            call(&env, "POOL", "/write").await?;
            env.service("ECHO")?.fetch_request(post("/execute")?).await?.text().await?;
            call(&env, "POOL", "/write-and-call").await?;
        }
        "/reserve" => {
            call(&env, "ACCOUNT", "/write").await?;
            call(&env, "POOL", "/write").await?;
        }
        "/consume" => {
            call(&env, "POOL", "/write-and-call").await?;
        }
        _ => return Response::error("no such route", 404),
    }
    Response::ok(BODY)
}

/// Either object.
#[durable_object]
pub struct Row {
    state: State,
    env: Env,
}

impl DurableObject for Row {
    fn new(state: State, env: Env) -> Self {
        let table = "CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, body TEXT NOT NULL)";
        if let Err(error) = state.storage().sql().exec(table, None) {
            worker::console_error!("{error}");
        }
        Self { state, env }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        let sql = self.state.storage().sql();
        sql.exec("INSERT INTO entry (body) VALUES (?)", vec![SqlStorageValue::String(body)])?;
        if request.path() == "/write-and-call" {
            call(&self.env, "ACCOUNT", "/write").await?;
        }
        Response::ok(BODY)
    }
}
