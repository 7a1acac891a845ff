//! `tsh kube`: lists Kubernetes clusters, writes the kubeconfig, and is kubectl's exec plugin.

use std::{env, path::Path};

use anyhow::{Context as _, bail};
use remoteler_client::{KubeEntry, Kubeconfig, ProxyAddr, StoredLogin};
use remoteler_core::{AuthApi, KubeClusterName, Timestamp};
use serde::Serialize;

use super::{login, ls::labels_text};
use crate::{
    context::{Context, block_on, remote_auth},
    output::{self, Format, Table, say},
    session_mfa, trust,
};

#[derive(Serialize)]
struct Shown {
    kube_cluster_name: String,
    labels: remoteler_core::Labels,
    selected: bool,
}

pub(crate) fn list(context: &Context, format: Format) -> anyhow::Result<()> {
    let login = context.login()?;
    let mut clusters = block_on(async {
        trust::refresh_when_old(context, &login).await;
        anyhow::Ok(remote_auth(&login)?.kube_clusters().await?)
    })??;
    clusters.sort_by(|first, second| first.name.cmp(&second.name));
    // A kubeconfig that cannot be read only means that nothing is known to be selected.
    let current = kubeconfig().ok().and_then(|file| file.current_context().ok().flatten());
    let shown: Vec<Shown> = clusters
        .into_iter()
        .map(|record| Shown {
            selected: current.as_deref() == Some(&format!("{}-{}", login.identity.cluster, record.name)),
            kube_cluster_name: record.name.to_string(),
            labels: record.labels,
        })
        .collect();
    output::print(format, &shown[..], |shown| {
        let mut table = Table::new(&["KUBE CLUSTER", "LABELS", "SELECTED"]);
        for cluster in shown {
            let selected = if cluster.selected { "*" } else { "" };
            table.row([cluster.kube_cluster_name.clone(), labels_text(&cluster.labels), selected.into()]);
        }
        table.into_text()
    })
}

pub(crate) fn login(context: &Context, name: &KubeClusterName) -> anyhow::Result<()> {
    block_on(async {
        let login = login::ensure(context, false).await?;
        let clusters = remote_auth(&login)?.kube_clusters().await?;
        if !clusters.iter().any(|record| record.name == *name) {
            bail!("there is no Kubernetes cluster {name} that you may use; `tsh kube ls` shows those you may");
        }
        let context_name = format!("{}-{name}", login.identity.cluster);
        write_kubeconfig(context.store.home(), &login, std::slice::from_ref(name), Some(&context_name))?;
        say(&format!("Logged in to Kubernetes cluster {name}. Try: kubectl --context {context_name} version"));
        anyhow::Ok(())
    })?
}

/// Enters `names` into the kubeconfig, and selects `current` if it is given.
pub(crate) fn write_kubeconfig(
    home: &Path,
    login: &StoredLogin,
    names: &[KubeClusterName],
    current: Option<&str>,
) -> anyhow::Result<()> {
    let tsh = env::current_exe().context("the path of this program is not known")?;
    let entries: Vec<KubeEntry<'_>> = names
        .iter()
        .map(|name| KubeEntry {
            proxy: &login.profile.proxy,
            cluster: &login.identity.cluster,
            kube_cluster: name,
            trust: &login.trust,
            tsh: &tsh,
            home,
        })
        .collect();
    Ok(kubeconfig()?.set(&entries, current)?)
}

/// Removes the entries of a proxy from the kubeconfig.
pub(crate) fn forget(proxy: &ProxyAddr) -> anyhow::Result<()> {
    Ok(kubeconfig()?.remove(proxy)?)
}

/// The first file in `$KUBECONFIG`, or `~/.kube/config`.
fn kubeconfig() -> anyhow::Result<Kubeconfig> {
    let listed =
        env::var_os("KUBECONFIG").and_then(|list| env::split_paths(&list).find(|path| !path.as_os_str().is_empty()));
    let path = match listed {
        Some(path) => path,
        None => Path::new(&env::var_os("HOME").context("HOME is not set; set it, or KUBECONFIG")?).join(".kube/config"),
    };
    Ok(Kubeconfig::new(path))
}

/// `ExecCredential` of client.authentication.k8s.io/v1beta1, as client-go reads it from an exec plugin's standard output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential<'a> {
    kind: &'static str,
    api_version: &'static str,
    spec: serde_json::Map<String, serde_json::Value>,
    status: ExecStatus<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecStatus<'a> {
    expiration_timestamp: String,
    client_certificate_data: &'a str,
    client_key_data: &'a str,
}

pub(crate) fn credentials(context: &Context, name: &KubeClusterName) -> anyhow::Result<()> {
    let (login, proven) = block_on(async {
        let login = login::ensure(context, false).await?;
        let refresh = trust::refresh_when_old(context, &login);
        let ((), proven) = tokio::join!(refresh, session_mfa::kube(context, &login, name));
        let proven = proven?;
        anyhow::Ok((login, proven))
    })??;
    let credential = match &proven {
        Some(proven) => exec_credential(&proven.certificate, proven.private_key.reveal(), proven.expires),
        None => exec_credential(&login.tls_certificate, login.tls_private_key.reveal(), login.expires),
    };
    output::print(Format::Json, &credential, |_| String::new())
}

fn exec_credential<'a>(certificate: &'a str, key: &'a str, expires: Timestamp) -> ExecCredential<'a> {
    ExecCredential {
        kind: "ExecCredential",
        api_version: "client.authentication.k8s.io/v1beta1",
        spec: serde_json::Map::new(),
        status: ExecStatus {
            // client-go reads RFC 3339 in whole seconds.
            expiration_timestamp: Timestamp::from_unix_seconds(expires.unix_seconds())
                .to_string()
                .replace(".000Z", "Z"),
            client_certificate_data: certificate,
            client_key_data: key,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credential_has_the_form_that_kubectl_reads() {
        let expires = Timestamp::parse("2026-03-01T12:00:00.5Z").unwrap();
        let json = serde_json::to_value(exec_credential("CERT", "KEY", expires)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "kind": "ExecCredential",
                "apiVersion": "client.authentication.k8s.io/v1beta1",
                "spec": {},
                "status": {
                    "expirationTimestamp": "2026-03-01T12:00:00Z",
                    "clientCertificateData": "CERT",
                    "clientKeyData": "KEY"
                }
            })
        );
    }
}
