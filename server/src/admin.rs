//! The admin HTTP: whether the node lives and serves, its numbers, and what it is.
//!
//! It runs on core 0 beside the node and reaches it through [`Node`] alone, which may be sent and shared: axum asks for
//! that, and the cores' own state never is.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ouzel_broker::metrics::CoreSample;
use serde_json::json;

use crate::config::Address;
use crate::exposition;
use crate::failure::{Failure, reason};
use crate::machine;
use crate::metrics::{self, Scrape};

/// The paths, each with what it answers; `docs/operations.md` shows the table.
pub(crate) const ENDPOINTS: &[(&str, &str)] = &[
    ("/livez", "200 while the process lives."),
    (
        "/readyz",
        "200 while the node serves clients; 503 while it recovers its logs or waits for its cluster, with what it waits for, and once it drains.",
    ),
    ("/metrics", "Its numbers, in Prometheus's text format; 503 while it does not serve."),
    ("/v1/node", "What it is: version, node id, cluster id, uptime, cores, disk backend, addresses."),
    ("/v1/health", "What ails it: `status` is `ok`, or `degraded` with a sentence for each of the `faults`."),
];

/// What the admin HTTP wants to know of the node.
pub(crate) trait Node: Clone + Send + Sync + 'static {
    /// Whether it serves clients.
    fn is_ready(&self) -> bool;
    /// What it waits for before it serves, in words.
    fn waits_for(&self) -> Option<String>;
    /// The cluster's id, while it serves.
    fn cluster_id(&self) -> Option<String>;
    /// Where Kafka clients connect, while it serves.
    fn kafka_address(&self) -> Option<String>;
    /// How files are read and written.
    fn disk_backend(&self) -> String;
    /// The counts of all cores together, while it serves.
    fn sample(&self) -> impl Future<Output = Option<CoreSample>> + Send;
    /// What keeps it from being whole, a sentence each, while it serves.
    fn faults(&self) -> impl Future<Output = Option<Vec<String>>> + Send;
}

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) version: &'static str,
    pub(crate) node_id: i32,
    pub(crate) cores: u16,
    pub(crate) data_dir: String,
    pub(crate) admin_address: String,
    pub(crate) started: Instant,
    pub(crate) started_s: f64,
}

struct Admin<N> {
    node: N,
    facts: Facts,
}

/// Takes the address, before anything else is begun: a second node on it fails and has touched nothing.
pub(crate) fn bind(address: &Address) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind((address.host.as_str(), address.port)).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        let (what, mend) = match error.kind() {
            io::ErrorKind::AddrInUse => ("is in use".to_owned(), "stop who listens there, or choose another"),
            io::ErrorKind::AddrNotAvailable => {
                ("is not an address of this machine".to_owned(), "choose one of its own")
            }
            io::ErrorKind::PermissionDenied => {
                ("needs rights this process lacks".to_owned(), "choose a port above 1023")
            }
            _ => (format!("cannot be listened at ({})", reason(&error)), "choose another"),
        };
        Failure::not_started(format!(
            "the admin address {address} {what}: {mend} with --admin-listener HOST:PORT"
        ))
    })
}

/// Serves until the core ends.
pub(crate) async fn serve<N: Node>(listener: TcpListener, node: N, facts: Facts) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin HTTP cannot serve"),
    };
    if let Err(error) = axum::serve(listener, router(node, facts)).await {
        tracing::error!(%error, "the admin HTTP has ended");
    }
}

fn router<N: Node>(node: N, facts: Facts) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz::<N>))
        .route("/metrics", get(metrics::<N>))
        .route("/v1/node", get(node_facts::<N>))
        .route("/v1/health", get(health::<N>))
        .fallback(unknown_path)
        .with_state(Arc::new(Admin { node, facts }))
}

async fn readyz<N: Node>(State(admin): State<Arc<Admin<N>>>) -> Response {
    match admin.node.is_ready() {
        true => "ready\n".into_response(),
        false => {
            let words = admin
                .node
                .waits_for()
                .map_or_else(|| "not ready\n".to_owned(), |waits_for| format!("not ready: {waits_for}\n"));
            (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
        }
    }
}

async fn metrics<N: Node>(State(admin): State<Arc<Admin<N>>>) -> Response {
    let Some(sample) = admin.node.sample().await else { return not_serving() };
    let (node, facts) = (&admin.node, &admin.facts);
    let text = metrics::render(Scrape {
        version: facts.version,
        node_id: facts.node_id,
        cluster_id: &node.cluster_id().unwrap_or_default(),
        disk_backend: &node.disk_backend(),
        cores: facts.cores,
        ready: node.is_ready(),
        uptime_s: facts.started.elapsed().as_secs_f64(),
        process: machine::process_use(facts.started_s),
        sample,
    });
    ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response()
}

async fn node_facts<N: Node>(State(admin): State<Arc<Admin<N>>>) -> Response {
    let (node, facts) = (&admin.node, &admin.facts);
    as_json(
        StatusCode::OK,
        &json!({
            "version": facts.version,
            "node_id": facts.node_id,
            "cluster_id": node.cluster_id(),
            "ready": node.is_ready(),
            "uptime_seconds": facts.started.elapsed().as_secs(),
            "cores": facts.cores,
            "disk_backend": node.disk_backend(),
            "kafka_address": node.kafka_address(),
            "admin_address": facts.admin_address,
            "data_dir": facts.data_dir,
        }),
    )
}

/// 200 in either state: whoever asks wants the answer, and `/readyz` is there for those who want a status.
async fn health<N: Node>(State(admin): State<Arc<Admin<N>>>) -> Response {
    let Some(faults) = admin.node.faults().await else { return not_serving() };
    let status = if faults.is_empty() { "ok" } else { "degraded" };
    as_json(StatusCode::OK, &json!({ "status": status, "faults": faults }))
}

async fn unknown_path(uri: Uri) -> Response {
    let known = ENDPOINTS.iter().map(|(path, _)| *path).collect::<Vec<_>>().join(", ");
    as_json(
        StatusCode::NOT_FOUND,
        &json!({ "error": format!("there is no {}; there are {known}", uri.path()) }),
    )
}

fn not_serving() -> Response {
    as_json(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({ "error": "the node does not serve: it recovers its logs, or it drains" }),
    )
}

fn as_json(status: StatusCode, value: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

#[cfg(test)]
mod tests;
