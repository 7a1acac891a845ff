// Drives a real browser over the pages: each in light, dark and phone width, checked for accessibility and drawn; then the flows and the attacks.
// Arguments: address of the proxy, directory of the gallery, directory for pictures, a JSON object with links and the service's time.
// Prints one line for each thing that was shown; whatever is wrong ends it with an error.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { totp } from './totp.mjs';

const require = createRequire(process.env.REMOTELER_TEST_PAGES + '/');
const { chromium } = require('playwright-core');
const readQr = require('jsqr');
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const [base, gallery, pictures, given] = process.argv.slice(2);
const links = JSON.parse(given);
const looks = [
  { name: 'light', colorScheme: 'light', viewport: { width: 1280, height: 860 } },
  { name: 'dark', colorScheme: 'dark', viewport: { width: 1280, height: 860 } },
  { name: 'phone', colorScheme: 'light', viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true },
];
const policy = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const script = fs.readFileSync(links.script, 'utf8');
const PASSWORD = 'correct horse battery';

fs.mkdirSync(pictures, { recursive: true });
const browser = await chromium.launch({ timeout: 120_000, executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
try {
  await inEachLook();
  await signUpWithTheKeyboard();
  await logInAndConfirm();
  await framesStayEmpty();
  await formsOfOtherSitesAreRefused();
  await keys();
} finally {
  await browser.close();
}

/// A context whose page fails the run when the browser complains about anything.
async function open(options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(120_000);
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (line) => line.type() === 'error' && complaints.push(line.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  return { context, page, complaints };
}

async function check(page, name) {
  // With its stylesheet: what one waits for on a page can be there before it.
  await page.waitForLoadState('load');
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  const found = violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => `${node.html} ${node.failureSummary}`).join('; ')}`);
  assert.deepEqual(found, [], `${name}: axe`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, `${name} is wider than the window`);
  const small = await page.evaluate(() => [...document.querySelectorAll('button, .button, input:not([type=hidden]), select')]
    .map((element) => element.getBoundingClientRect().height).filter((height) => height > 0 && height < 36));
  assert.deepEqual(small, [], `${name} has targets that are hard to hit`);
}

async function draw(page, name) {
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
}

async function inEachLook() {
  for (const { name: look, ...options } of looks) {
    const { context, page, complaints } = await open(options);
    // Pages of flows that need somebody else: as they are rendered, under the policy they have.
    await context.route(`${base}/gallery/*`, (route) => route.fulfill({
      contentType: 'text/html; charset=utf-8',
      headers: { 'content-security-policy': policy.replace('form-action', "script-src 'self'; connect-src 'self'; form-action") },
      // Pages that lead on to tsh or to a provider by themselves have to stay, to be looked at.
      body: fs.readFileSync(path.join(gallery, path.basename(new URL(route.request().url()).pathname)), 'utf8')
        .replace(/<meta http-equiv="refresh"[^>]*>/, '').replace('<script src="/web/submit.js" defer></script>', ''),
    }));
    const shown = fs.readdirSync(gallery).map((file) => [path.basename(file, '.html'), `${base}/gallery/${file}`]);
    shown.push(['live-invite', links.shown]);
    for (const [name, url] of shown) {
      await page.goto(url);
      await check(page, `${name} in ${look}`);
      await draw(page, `${name}-${look}`);
    }
    await page.goto(`${base}/web/invite/none`);
    assert.match(await page.textContent('main'), /used or has expired/);
    assert.deepEqual(complaints.filter((line) => !/status of 404/.test(line)), []);
    console.log(`looked at ${shown.length + 1} pages in ${look}`);
    await context.close();
  }
}

/// What the QR code says that is shown there, as a camera reads it from the screen.
async function scanned(image) {
  const { width, height, pixels } = await image.evaluate(async (shown) => {
    await shown.decode();
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [shown.width, shown.height];
    const context = canvas.getContext('2d');
    context.fillStyle = getComputedStyle(shown).backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(shown, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    return { width: canvas.width, height: canvas.height, pixels: [...data] };
  });
  const found = readQr(Uint8ClampedArray.from(pixels), width, height, { inversionAttempts: 'dontInvert' });
  assert.ok(found, 'no QR code can be read');
  return new URL(found.data);
}

/// As somebody does who sees nothing and has no mouse: the focus is where it must be, and order and names are right.
async function signUpWithTheKeyboard() {
  const { context, page, complaints } = await open();
  await page.goto(links.used);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'password');
  await page.keyboard.type('correct horse battery');
  await page.keyboard.press('Tab');
  await page.keyboard.type('another horse battery');
  await page.keyboard.press('Enter');
  assert.match(await page.getByRole('alert').textContent(), /not the same/);
  const secret = (await page.locator('code').textContent()).replaceAll(' ', '');
  // Whoever scans it gets what whoever types it gets.
  const qr = await scanned(page.locator('img').first());
  assert.equal(`${qr.protocol}//${qr.host}`, 'otpauth://totp');
  assert.equal(qr.searchParams.get('secret'), secret);
  assert.match(decodeURIComponent(qr.pathname), /ann$/);
  console.log('the QR code was read back');
  await page.keyboard.type('correct horse battery');
  await page.keyboard.press('Tab');
  await page.keyboard.type('correct horse battery');
  links.secret = secret;
  await page.getByLabel('Six digits from the app').fill(totp(secret, links.now));
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Your account is ready' }).waitFor();
  assert.equal(await page.locator('.codes li').count(), 8);
  assert.match(await page.textContent('main'), /tsh login --proxy=localhost:\d+ --user=ann/);
  assert.deepEqual(complaints.filter((line) => !/status of 400/.test(line)), []);
  const kept = await context.cookies();
  assert.ok(kept.every((cookie) => cookie.name.startsWith('__Host-') && cookie.secure && cookie.httpOnly)); // I50
  await context.close();
  console.log('an account was set up with the keyboard alone');
}

/// Ann, who has just signed up, logs tsh in: password and code, then the code of the terminal.
async function logInAndConfirm() {
  const { context, page, complaints } = await open();
  await page.goto(links.login);
  await check(page, 'live-login');
  await page.keyboard.type('ann');
  await page.keyboard.press('Tab');
  await page.keyboard.type('wrong horse battery');
  await page.keyboard.press('Enter');
  assert.match(await page.getByRole('alert').textContent(), /Wrong user name or password\./);
  assert.equal(await page.getByLabel('User name').inputValue(), 'ann');
  await page.getByLabel('Password').fill('correct horse battery');
  await page.getByLabel('One-time code').fill(totp(links.secret, links.now + 30));
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Is this you?' }).waitFor();
  await check(page, 'live-confirm');
  await draw(page, 'live-confirm-light');
  assert.ok((await page.textContent('main')).includes(links.code)); // I41
  await page.getByRole('button', { name: 'log in' }).click();
  await page.getByRole('heading', { name: 'You are logged in' }).waitFor();
  assert.deepEqual(complaints.filter((line) => !/status of 400/.test(line)), []);
  const [kept] = (await context.cookies()).filter((cookie) => cookie.name.startsWith('__Host-'));
  assert.ok(kept.secure && kept.httpOnly && kept.sameSite === 'Lax'); // I50
  await context.close();
  console.log('tsh was logged in by password and code');
}

async function evil(html) {
  const opened = await open();
  await opened.context.route('https://evil.example/**', (route) => route.fulfill({ contentType: 'text/html', body: html }));
  await opened.page.goto('https://evil.example/');
  return opened;
}

async function framesStayEmpty() {
  const { context, page } = await evil(`<iframe src="${links.shown}"></iframe>`);
  await page.locator('iframe').waitFor();
  const frame = await (await page.locator('iframe').elementHandle()).contentFrame();
  await frame.waitForLoadState();
  assert.equal(await frame.locator('form').count(), 0, 'a page of ours is shown in a frame of others'); // I54
  await context.close();
  console.log('no other site frames a page');
}

async function formsOfOtherSitesAreRefused() {
  const fields = '<input name="csrf" value="x"><input name="password" value="evil horse battery"><input name="again" value="evil horse battery">';
  const { context, page } = await evil(`<form method="post" action="${links.shown}">${fields}<button>go</button></form>`);
  // The browser has our cookie, as a victim's has.
  const own = await context.newPage();
  await own.goto(links.shown);
  const [answer] = await Promise.all([page.waitForNavigation(), page.click('button')]);
  assert.equal(answer.status(), 403); // I52
  assert.match(await page.textContent('main'), /another site/);
  await context.close();
  console.log('no form of another site is taken');
}

/// Clicks what asks the key, once the page's script is there to do it.
async function press(page, heading, button) {
  await page.getByRole('heading', { name: heading }).waitFor();
  await page.waitForLoadState('load');
  await page.getByRole('button', { name: button }).click();
}

/// A browser with a security key of its own, which is touched as soon as it is asked.
async function withKey() {
  const opened = await open();
  const cdp = await opened.context.newCDPSession(opened.page);
  await cdp.send('WebAuthn.enable');
  const options = {
    protocol: 'ctap2', transport: 'usb', hasResidentKey: false, hasUserVerification: true, isUserVerified: true,
    automaticPresenceSimulation: true,
  };
  const { authenticatorId } = await cdp.send('WebAuthn.addVirtualAuthenticator', { options });
  return { ...opened, cdp, authenticatorId };
}

async function signUpByKey({ page }, link, name) {
  await page.goto(link);
  await check(page, `live-invite-key of ${name}`);
  await draw(page, 'live-invite-key-light');
  await page.getByLabel('New password').fill(PASSWORD);
  await page.getByLabel('The same password again').fill(PASSWORD);
  await page.getByRole('button', { name: 'Save with a security key' }).click();
  await page.getByRole('heading', { name: 'Your account is ready' }).waitFor();
  assert.equal(await page.locator('.codes li').count(), 8);
}

/// To the page that asks for the key: what it asks, and where its answer goes.
async function toTouch(page, login, user) {
  await page.goto(login);
  await page.getByLabel('User name').fill(user);
  await page.getByLabel('Password').fill(PASSWORD);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Use your security key' }).waitFor();
  const options = JSON.parse(await page.locator('button[data-webauthn]').getAttribute('data-options'));
  const token = await page.locator('input[name=token]').first().inputValue();
  return { options, token, url: `${login}/key` };
}

/// What the page's key answers to these options, at whatever site the page is.
function answerOf(page, options) {
  return page.evaluate(`(() => { ${script}; return ask('get', ${JSON.stringify(options)}); })()`);
}

/// Sends an answer as the page's form does.
async function send(context, { url, token }, answer) {
  const sent = await context.request.post(url, { form: { token, answer }, maxRedirects: 0, headers: { origin: base } });
  return { status: sent.status(), text: await sent.text() };
}

/// The account page, reached by the key: factors come and go, and the session ends.
async function account({ page, context, cdp, authenticatorId: first }) {
  await page.goto(`${base}/web/account`);
  await check(page, 'live-account-gate');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByLabel('User name').fill('kay');
  await page.getByLabel('Password').fill(PASSWORD);
  await page.keyboard.press('Enter');
  await press(page, 'Use your security key', 'Use the security key');
  await page.getByRole('heading', { name: 'Second factors' }).waitFor();
  await check(page, 'live-account');
  await draw(page, 'live-account-light');
  const kept = (await context.cookies()).find((cookie) => cookie.name === '__Host-remoteler-session');
  assert.ok(kept.secure && kept.httpOnly && kept.sameSite === 'Lax'); // I50

  await page.getByRole('button', { name: 'Add an authenticator app' }).click();
  await check(page, 'live-account-app');
  const secret = (await page.locator('code').textContent()).replaceAll(' ', '');
  await page.getByLabel('Name').fill('phone');
  await page.getByLabel('Six digits from the app').fill(totp(secret, links.now));
  await page.keyboard.press('Enter');
  await page.getByRole('status').filter({ hasText: 'was added' }).waitFor();
  await page.getByRole('button', { name: 'Remove phone' }).click();
  await page.getByRole('status').filter({ hasText: 'was removed' }).waitFor();

  await page.getByRole('button', { name: 'Add a security key' }).click();
  await page.getByLabel('Name').fill('the same once more');
  await press(page, 'Add a security key', 'Use the security key');
  await page.getByRole('alert').filter({ hasText: 'did not answer' }).waitFor();
  const options = {
    protocol: 'ctap2', transport: 'internal', hasResidentKey: true, hasUserVerification: true, isUserVerified: true,
    automaticPresenceSimulation: true,
  };
  // The first key lies there untouched while the second one is set up.
  await cdp.send('WebAuthn.setAutomaticPresenceSimulation', { authenticatorId: first, enabled: false });
  const { authenticatorId } = await cdp.send('WebAuthn.addVirtualAuthenticator', { options });
  await page.getByLabel('Name').fill('laptop');
  await press(page, 'Add a security key', 'Use the security key');
  await page.getByRole('status').filter({ hasText: 'was added' }).waitFor();
  await page.getByRole('button', { name: 'Remove laptop' }).click();
  await page.getByRole('status').filter({ hasText: 'was removed' }).waitFor();
  await cdp.send('WebAuthn.removeVirtualAuthenticator', { authenticatorId });
  await cdp.send('WebAuthn.setAutomaticPresenceSimulation', { authenticatorId: first, enabled: true });

  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByRole('button', { name: 'Log in' }).waitFor();
  assert.ok(!(await context.cookies()).some((cookie) => cookie.name === '__Host-remoteler-session'));
  console.log('factors came and went on the account page');
}

async function keys() {
  const kay = await withKey();
  const { page, context, cdp, authenticatorId } = kay;
  await signUpByKey(kay, links.kay, 'kay');
  console.log('an account was set up with a security key');

  const [first, ...logins] = links.logins;
  await toTouch(page, first, 'kay');
  await check(page, 'live-touch');
  await draw(page, 'live-touch-light');
  await press(page, 'Use your security key', 'Use the security key');
  await page.getByRole('heading', { name: 'Is this you?' }).waitFor();
  await page.getByRole('button', { name: 'log in' }).click();
  await page.getByRole('heading', { name: 'You are logged in' }).waitFor();
  assert.deepEqual(kay.complaints, []);
  console.log('tsh was logged in by password and security key');

  await account(kay);

  // An answer counts once, and for no other question.
  let asked = await toTouch(page, logins.shift(), 'kay');
  const answer = await answerOf(page, asked.options);
  assert.equal((await send(context, asked, answer)).status, 303);
  assert.equal((await send(context, asked, answer)).status, 404, 'the login went on');
  asked = await toTouch(page, logins.shift(), 'kay');
  let refused = await send(context, asked, answer);
  assert.equal(refused.status, 400); // I48
  assert.match(refused.text, /not the right one/);
  refused = await send(context, asked, await answerOf(page, asked.options));
  assert.equal(refused.status, 403); // I48: the question was taken by the wrong answer.
  console.log('a replayed answer of a key was refused');

  const eve = await withKey();
  await signUpByKey(eve, links.eve, 'eve');
  const { credentials: [hers] } = await eve.cdp.send('WebAuthn.getCredentials', { authenticatorId: eve.authenticatorId });
  const known = hers.credentialId.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
  asked = await toTouch(page, logins.shift(), 'kay');
  const { publicKey } = asked.options;
  const foreign = { publicKey: { ...publicKey, allowCredentials: [{ type: 'public-key', id: known }] } };
  refused = await send(context, asked, await answerOf(eve.page, foreign));
  assert.equal(refused.status, 400); // I48
  // Eve's browser cannot answer what kay's was asked.
  const login = logins.shift();
  asked = await toTouch(page, login, 'kay');
  const stolen = await answerOf(page, asked.options);
  assert.equal((await send(eve.context, asked, stolen)).status, 403); // I36, I48
  await eve.context.close();
  console.log('an answer for another user was refused');

  // The same host under another port: the key signs, and says where it was asked.
  asked = await toTouch(page, logins.shift(), 'kay');
  await page.goto(`${links.other}/web/nothing`);
  refused = await send(context, asked, await answerOf(page, asked.options));
  assert.equal(refused.status, 400); // I48
  assert.match(refused.text, /not the right one/);
  console.log('an answer from another origin was refused');

  // A copy that was made earlier counts from there.
  const { credentials: [own] } = await cdp.send('WebAuthn.getCredentials', { authenticatorId });
  assert.ok(own.signCount > 1);
  await cdp.send('WebAuthn.removeCredential', { authenticatorId, credentialId: own.credentialId });
  await cdp.send('WebAuthn.addCredential', { authenticatorId, credential: { ...own, signCount: 0 } });
  await toTouch(page, logins.shift(), 'kay');
  await press(page, 'Use your security key', 'Use the security key');
  await page.getByRole('alert').filter({ hasText: 'counter went back' }).waitFor(); // I48
  await check(page, 'live-touch-refused');
  await draw(page, 'live-touch-refused-light');
  await context.close();
  console.log('a copied key was refused');
}
