//! `tsh explain`: what may I do here. Owns the wording; the auth service decides, and says of others nothing.

use remoteler_core::{AuthApi, ExplainRequest, ExplainedKind, Explanation};

use crate::{
    cli,
    context::{Context, block_on, remote_auth},
    output::{self, Table},
    trust,
};

pub(crate) fn run(context: &Context, options: &cli::Explain) -> anyhow::Result<()> {
    let login = context.login()?;
    let request = ExplainRequest {
        app: options.app.clone(),
        user: None,
        node: options.node.clone(),
        kube_cluster: options.kube.clone(),
        login: options.login.clone(),
    };
    let explanations = block_on(async {
        trust::refresh_when_old(context, &login).await;
        anyhow::Ok(remote_auth(&login)?.explain(request).await?)
    })??;
    let one = options.node.is_some() || options.kube.is_some() || options.app.is_some();
    output::print(options.formatted.format, &explanations[..], |explanations| text(explanations, one))
}

fn text(explanations: &[Explanation], one: bool) -> String {
    if one {
        return explanations.iter().map(|explanation| output::safe(&explanation.sentence()) + "\n").collect();
    }
    if explanations.is_empty() {
        return "Your roles allow nothing here; ask an administrator.\n".into();
    }
    let mut table = Table::new(&["TARGET", "LOGIN", "ALLOWED"]);
    for Explanation { kind, target, login, allowed, .. } in explanations {
        let of_target = if *kind == ExplainedKind::App { "(application)" } else { "(kubernetes)" };
        let login = login.as_ref().map_or_else(|| of_target.to_owned(), ToString::to_string);
        table.row([target.clone(), login, if *allowed { "yes" } else { "no" }.to_owned()]);
    }
    table.into_text()
}

#[cfg(test)]
mod tests {
    use remoteler_core::{Login, UserName};

    use super::*;

    #[test]
    fn one_target_is_a_sentence_and_all_are_a_table() {
        let explanation = |target: &str, login: Option<&str>| Explanation {
            kind: Default::default(),
            user: UserName::new("ann").unwrap(),
            target: target.into(),
            login: login.map(|login| Login::new(login).unwrap()),
            allowed: true,
            reason: "your roles allow it".into(),
            findings: Vec::new(),
            options: None,
        };
        let all = [explanation("gw-17", Some("root")), explanation("staging", None)];
        assert_eq!(
            text(&all, false),
            "TARGET   LOGIN         ALLOWED\ngw-17    root          yes\nstaging  (kubernetes)  yes\n"
        );
        assert_eq!(text(&all[..1], true), "ann may log in as root to gw-17: your roles allow it\n");
    }
}
