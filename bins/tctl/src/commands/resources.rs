//! `tctl get`, `create` and `rm`: resources as documents.

use std::{io::Read, path::Path};

use anyhow::{Context, bail, ensure};
use remoteler_core::{ApiErrorKind, AuthApi, Resource, ResourceKind};
use serde_json::json;

use super::{ResourceRef, documents};
use crate::output::{Report, Table, joined};

/// Most that is read of a file of documents, in octets.
const MAX_OCTETS: u64 = 4 * 1024 * 1024;

/// Prints documents of a kind, or one.
pub(crate) async fn get(api: &dyn AuthApi, wanted: &ResourceRef, with_secrets: bool) -> anyhow::Result<Report> {
    let mut found = if with_secrets {
        api.connector_secrets(wanted.kind, wanted.name.clone()).await?
    } else {
        api.resources(wanted.kind, wanted.name.clone()).await?
    };
    let text = table(&found);
    match &wanted.name {
        Some(name) => match found.pop() {
            Some(one) if found.is_empty() => Ok(Report::document(text, one)),
            Some(_) | None => bail!("{} {name:?} was not found", wanted.kind.as_str()),
        },
        None => Ok(Report::documents(text, found)),
    }
}

fn table(resources: &[Resource]) -> String {
    let mut table = Table::new(["KIND", "NAME", "VERSION", "LABELS", "EXPIRES"]);
    for Resource { kind, version, metadata, .. } in resources {
        let labels = joined(metadata.labels.iter().map(|(key, value)| format!("{key}={value}")));
        let expires = metadata.expires.map(|moment| moment.to_string()).unwrap_or_default();
        table.row([kind.clone(), metadata.name.clone(), version.clone(), labels, expires]);
    }
    table.render()
}

/// Reads the documents of a file, or of standard input. All of them are read and checked before one is written.
pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Vec<Resource>> {
    let (name, text) = text_of(file)?;
    documents::parse(&text).with_context(|| format!("{name}: nothing was written"))
}

/// Reads the documents of a file for `tctl test`, which knows nodes and Kubernetes clusters besides.
pub(crate) fn read_for_tests(file: &Path) -> anyhow::Result<Vec<Resource>> {
    let (name, text) = text_of(Some(file))?;
    documents::parse_for_tests(&text).context(name)
}

fn text_of(file: Option<&Path>) -> anyhow::Result<(String, String)> {
    let file = file.filter(|file| *file != Path::new("-"));
    let name = file.map_or_else(|| "standard input".into(), |file| file.display().to_string());
    let mut text = String::new();
    let octets = match file {
        Some(file) => {
            let file = std::fs::File::open(file).with_context(|| format!("{name} cannot be read"))?;
            file.take(MAX_OCTETS + 1).read_to_string(&mut text)
        }
        None => std::io::stdin().lock().take(MAX_OCTETS + 1).read_to_string(&mut text),
    };
    let octets = octets.with_context(|| format!("{name} cannot be read"))?;
    ensure!(octets as u64 <= MAX_OCTETS, "{name} has more than {MAX_OCTETS} octets; split it");
    Ok((name, text))
}

/// Writes documents as they stand in the file. Roles, users and policy tests that follow each other are one change, so that a role and the test
/// that speaks of it change together.
pub(crate) async fn create(api: &dyn AuthApi, documents: Vec<Resource>, force: bool) -> anyhow::Result<Report> {
    if !force {
        refuse_existing(api, &documents).await?;
    }
    let (total, mut written) = (documents.len(), Vec::with_capacity(documents.len()));
    let mut documents = documents.into_iter().peekable();
    while let Some(first) = documents.next() {
        let mut change = vec![first];
        while let Some(next) = documents.next_if(|next| says_who_may(&change[0]) && says_who_may(next)) {
            change.push(next);
        }
        let mut names: Vec<_> = change.iter().map(this).collect();
        let what = match names.as_slice() {
            [(one, _)] => one.clone(),
            [(first, _), ..] => format!("{first} and the {} that are one change with it", names.len() - 1),
            [] => String::new(),
        };
        let done = match change.pop() {
            Some(one) if change.is_empty() => api.put_resource(one, force).await,
            last => api.put_policy(change.into_iter().chain(last).collect(), force).await,
        };
        done.map_err(|cause| {
            let fate = if cause.kind == ApiErrorKind::Internal || cause.kind == ApiErrorKind::Unavailable {
                "perhaps not written; tctl get shows what is there"
            } else {
                "not written"
            };
            let context = format!("{what}: {fate}; {} of {total} documents were", written.len());
            anyhow::Error::new(cause).context(context)
        })?;
        written.append(&mut names);
    }
    let text: String = written.iter().map(|(what, _)| format!("{what} was written.\n")).collect();
    Report::new(text, &written.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>())
}

/// Whether it is checked with others of its sort.
fn says_who_may(document: &Resource) -> bool {
    let kind = ResourceKind::parse(&document.kind);
    matches!(kind, Ok(ResourceKind::Role | ResourceKind::User | ResourceKind::PolicyTest))
}

fn this(document: &Resource) -> (String, serde_json::Value) {
    let Resource { kind, metadata, .. } = document;
    (format!("{kind} {:?}", metadata.name), json!({ "kind": kind, "name": metadata.name }))
}

/// Looks for documents that are there already, so that none is written when one will be refused. Who may write but not read learns it
/// from the writing.
async fn refuse_existing(api: &dyn AuthApi, documents: &[Resource]) -> anyhow::Result<()> {
    let mut existing = Vec::new();
    for document in documents {
        let name = &document.metadata.name;
        if api.resources(ResourceKind::parse(&document.kind)?, Some(name.clone())).await.is_ok() {
            existing.push(format!("{} {name:?}", document.kind));
        }
    }
    ensure!(
        existing.is_empty(),
        "{} {} already; nothing was written; tctl create -f replaces",
        existing.join(", "),
        if existing.len() == 1 { "exists" } else { "exist" }
    );
    Ok(())
}

/// Removes a document.
pub(crate) async fn remove(api: &dyn AuthApi, unwanted: &ResourceRef) -> anyhow::Result<Report> {
    let kind = unwanted.kind.as_str();
    let Some(name) = &unwanted.name else { bail!("name the {kind} to be removed: {kind}/NAME") };
    api.delete_resource(unwanted.kind, name.clone()).await?;
    Report::new(format!("{kind} {name:?} was removed.\n"), &json!({ "kind": kind, "name": name, "removed": true }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let cause = read(Some(Path::new("/nowhere/role.yaml"))).unwrap_err();
        assert_eq!(cause.to_string(), "/nowhere/role.yaml cannot be read");
    }
}
