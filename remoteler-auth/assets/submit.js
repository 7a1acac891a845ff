// Sends the one form of its page: a request to an identity provider. Where this does not run, the button does the same.
document.forms[0].submit();
