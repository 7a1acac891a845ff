//! `tsh logout`: removes what the login at one proxy left on this machine, and nothing else.

use std::{env, path::Path};

use remoteler_client::{Profile, SshAgent};
use remoteler_core::wire;

use super::kube;
use crate::{
    context::Context,
    output::{one_line, say},
};

pub(crate) fn run(context: &Context) -> anyhow::Result<()> {
    let Some(profile) = context.profile()? else {
        say("Not logged in.");
        return Ok(());
    };
    let Profile { proxy, user, .. } = &profile;
    // Without a word about who: everybody at this proxy, so that no key stays behind unseen.
    let mut others = if context.common.user.is_some() { Vec::new() } else { context.store.users(proxy)? };
    others.retain(|other| other != user);
    for other in others {
        let other = Profile { user: other, ..profile.clone() };
        forget_in_agent(&other);
        if context.store.logout(&other)? {
            say(&format!("Logged out {} from {proxy}.", other.user));
        }
    }
    forget_in_agent(&profile);
    if let Err(cause) = kube::forget(proxy) {
        say(&format!("tsh: the kubeconfig was not cleaned: {}", one_line(&cause)));
    }
    if context.store.logout(&profile)? {
        say(&format!("Logged out {user} from {proxy}."));
        if let Some(connector) = &profile.logout_connector {
            let path = wire::path(wire::WEB_LOGOUT, connector);
            say(&format!(
                "Your browser may be logged in at the identity provider still; to end that too, open: https://{proxy}{path}"
            ));
        }
    } else {
        say(&format!("{user} was not logged in at {proxy}."));
    }
    Ok(())
}

fn forget_in_agent(profile: &Profile) {
    let Some(socket) = env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) else { return };
    // Without an agent there is nothing in it.
    let Ok(mut agent) = SshAgent::connect(Path::new(&socket)) else { return };
    if let Err(cause) = agent.remove(&profile.proxy, &profile.user) {
        say(&format!("tsh: the ssh-agent did not remove the certificate: {cause}"));
    }
}
