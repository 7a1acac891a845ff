// Asks a security key for the page's form. A form with data-webauthn="get" or "create" has the options in data-options; what the key answers goes into the
// field named by data-answer, and the form is sent. Runs on the pages that need it only, and asks nobody but the browser.
'use strict';

const octets = (text) => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (letter) => letter.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
const described = (list) => (list || []).map((each) => ({ ...each, id: octets(each.id) }));

async function ask(kind, { publicKey }) {
  publicKey.challenge = octets(publicKey.challenge);
  if (kind === 'create') {
    publicKey.user.id = octets(publicKey.user.id);
    publicKey.excludeCredentials = described(publicKey.excludeCredentials);
    const made = await navigator.credentials.create({ publicKey });
    const { attestationObject, clientDataJSON } = made.response;
    const transports = made.response.getTransports ? made.response.getTransports() : undefined;
    return answer(made, { attestationObject: text(attestationObject), clientDataJSON: text(clientDataJSON), transports });
  }
  publicKey.allowCredentials = described(publicKey.allowCredentials);
  const used = await navigator.credentials.get({ publicKey });
  const { authenticatorData, clientDataJSON, signature, userHandle } = used.response;
  return answer(used, {
    authenticatorData: text(authenticatorData),
    clientDataJSON: text(clientDataJSON),
    signature: text(signature),
    userHandle: userHandle ? text(userHandle) : null,
  });
}

function answer({ id, rawId, type }, response) {
  return JSON.stringify({ id, rawId: text(rawId), type, response, extensions: {} });
}

for (const button of document.querySelectorAll('button[data-webauthn]')) {
  const { form } = button;
  const problem = document.getElementById('key-problem');
  button.hidden = !window.PublicKeyCredential;
  button.addEventListener('click', async (event) => {
    event.preventDefault();
    // A code of an app is not needed beside a key.
    const codes = [...form.querySelectorAll('[data-without-key]')].filter((field) => field.required);
    codes.forEach((field) => { field.required = false; });
    if (!form.reportValidity()) {
      codes.forEach((field) => { field.required = true; });
      return;
    }
    button.disabled = true;
    problem.hidden = true;
    try {
      const field = form.elements.namedItem(button.dataset.answer);
      field.value = await ask(button.dataset.webauthn, JSON.parse(button.dataset.options));
      form.submit();
    } catch (cause) {
      // Also when the person said no, or the key is one that is known already: browsers do not tell these apart from others.
      problem.hidden = false;
      problem.focus();
      button.disabled = false;
      codes.forEach((field) => { field.required = true; });
    }
  });
}
