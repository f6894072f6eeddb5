//! `/api/usage/…` and `/api/cost/…`.

use rm_core::id::{ClientId, RequestId};

use crate::api::Call;
use crate::api::executions::unavailable;
use crate::api::reply::Reply;
use crate::host::object::call;
use crate::wire::account::ViewCall;
use crate::wire::api::CurrentUsage;
use crate::wire::pool::BillCall;
use crate::wire::problem::Problem;

/// `GET /api/usage/{clientId}/current`: from the account itself, so exact.
pub async fn current(call: &Call, client: &ClientId) -> Result<Reply, Problem> {
    call.may_touch(client)?;
    let view = self::call(&call.env, client.as_str(), &ViewCall {}).await.map_err(unavailable)?;
    let view = view.ok_or_else(|| Problem::not_found("client"))?;
    Reply::json(200, &CurrentUsage::from(view))
}

/// `GET /api/cost/{requestId}`.
pub async fn cost(call: &Call, id: &RequestId) -> Result<Reply, Problem> {
    let home = call.home_of(id, "request").await?;
    let answer = self::call(&call.env, home.as_str(), &BillCall { id: id.clone() }).await.map_err(unavailable)?;
    let answer = answer.ok_or_else(|| Problem::not_found("request"))?;
    call.may_touch(&answer.client)?;
    Reply::json(200, &answer.bill)
}
