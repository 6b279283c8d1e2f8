//! Target groups from an HTTP server (`http_sd_configs`).
//!
//! Source: upstream `discovery/http/http.go`.

use std::time::Duration;

use http::HeaderValue;
use http::header::ACCEPT;

use super::Sender;
use super::groups::{MAX_BYTES, parse_groups_json, with_origin};
use crate::ClientError;
use crate::client::{Fetch, HttpClient, Url};
use crate::config::TargetGroup;
use crate::secret::Secret;

/// A server that is asked again and again.
pub(crate) struct HttpSource {
    url: Url,
    refresh: Duration,
    client: HttpClient,
}

impl HttpSource {
    pub(super) fn new(url: &Secret, refresh: Duration, client: HttpClient) -> Result<Self, ClientError> {
        let url = Url::parse(url.expose()).map_err(ClientError::Tls)?;
        Ok(Self { url, refresh: refresh.max(Duration::from_millis(100)), client })
    }

    /// Sends the groups after each answer that differs from the one before; never ends.
    pub(super) async fn run(self, sender: &Sender) {
        let mut ticks = tokio::time::interval(self.refresh);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last: Option<Vec<TargetGroup>> = None;
        loop {
            ticks.tick().await;
            match self.ask().await {
                Ok(groups) if last.as_ref() == Some(&groups) => {}
                Ok(groups) => {
                    last = Some(groups.clone());
                    sender.send(groups).await;
                }
                Err(error) => {
                    self.client.metrics().http_sd_failures.inc();
                    tracing::error!(url = %self.url.redacted(), %error, "unable to refresh target groups");
                }
            }
        }
    }

    async fn ask(&self) -> Result<Vec<TargetGroup>, String> {
        let seconds = model::number::format_float(self.refresh.as_secs_f64());
        let seconds = HeaderValue::from_str(&seconds).map_err(|e| e.to_string())?;
        let headers = [
            (ACCEPT, HeaderValue::from_static("application/json")),
            (http::HeaderName::from_static("x-prometheus-refresh-interval-seconds"), seconds),
        ];
        let fetch = Fetch {
            url: &self.url,
            headers: &headers,
            body_limit: MAX_BYTES,
            paced: false,
            timeout: self.refresh,
        };
        let answer = self.client.fetch(&fetch).await.map_err(|e| e.to_string())?;
        let content_type = answer.content_type.trim().to_ascii_lowercase().replace(' ', "");
        let known =
            ["application/json", "application/json;charset=utf-8", "application/json;charset=\"utf-8\""];
        if !known.contains(&content_type.as_str()) {
            let shown: String = answer.content_type.chars().take(200).collect();
            return Err(format!("unsupported content type {shown:?}"));
        }
        let groups = parse_groups_json(&answer.body).map_err(|e| e.to_string())?;
        Ok(with_origin(groups, "__meta_url", &self.url.redacted()))
    }
}
