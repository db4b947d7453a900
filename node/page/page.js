// The page of a node. What it shows is GET /api/v1/status; a stream of events
// says when to ask again. It rests while nobody looks at it.

const api = '/api/v1'
const $ = id => document.getElementById(id)
const key = () => localStorage.getItem('bevy-key') ?? ''

// make builds an element. Text is never taken for HTML.
function make(tag, attributes, ...children) {
  const e = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value)
    else if (value !== undefined && value !== false) e.setAttribute(name, value === true ? '' : value)
  }
  e.append(...children.flat().filter(c => c !== undefined && c !== null && c !== false && c !== ''))
  return e
}

// ask asks the node. What it refuses is thrown as {code, message, cause, try, status}.
async function ask(method, path, body, options) {
  const headers = { 'X-Bevy-Key': key(), ...options?.headers }
  if (body) headers['Content-Type'] = 'application/json'
  const answer = await fetch(api + path, { method, headers, body: body && JSON.stringify(body), signal: options?.signal })
  if (!answer.ok) {
    const told = await answer.json().catch(() => undefined)
    throw { ...(told?.error ?? { message: `HTTP ${answer.status}` }), status: answer.status }
  }
  if (options?.raw) return answer
  return answer.status === 204 ? undefined : answer.json()
}

// Words.

const many = (n, thing) => `${n.toLocaleString('en')} ${thing}${n === 1 ? '' : 's'}`

function size(n) {
  if (n < 1024) return `${n} B`
  for (const unit of ['KiB', 'MiB', 'GiB', 'TiB']) {
    n /= 1024
    if (n < 1023.5 || unit === 'TiB') return `${n < 9.95 ? n.toFixed(1) : Math.round(n)} ${unit}`
  }
}

function span(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86400)} days`
}

const ago = iso => `${span((Date.now() - new Date(iso)) / 1000)} ago`
const when = iso => make('time', { datetime: iso, title: new Date(iso).toLocaleString() }, ago(iso))

// copy is a button with a command, which it copies.
function copy(command) {
  return make('button', {
    type: 'button', class: 'copy', 'aria-label': `Copy as command: ${command}`,
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(command)
        say(`copied: ${command}`)
      } catch {
        say(`type: ${command}`) // only pages of this machine may copy
      }
    },
  }, make('code', {}, command), make('span', { 'aria-hidden': 'true' }, 'copy'))
}

let quiet
function say(text) {
  $('said').textContent = text
  clearTimeout(quiet)
  quiet = setTimeout(() => { $('said').textContent = '' }, 3000)
}

// Parts of the page. Each is drawn anew only when it says something else, so that
// nobody loses their place in it.

const drawn = {}
function draw(id, value, f) {
  const text = JSON.stringify(value)
  if (drawn[id] === text) return
  drawn[id] = text
  const stops = () => [...$(id).querySelectorAll('button, summary, [tabindex]')]
  const focused = stops().indexOf(document.activeElement)
  $(id).querySelector('div').replaceChildren(...[f(value)].flat().filter(Boolean))
  stops()[focused]?.focus()
}

function table(headings, rows) {
  return make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': headings[0][0] },
    make('table', {},
      make('thead', {}, make('tr', {}, headings.map(([text, kind]) => make('th', { scope: 'col', class: kind }, text)))),
      make('tbody', {}, rows.map(cells => make('tr', {}, cells.map((cell, i) =>
        make(i ? 'td' : 'th', { class: headings[i][1], scope: i ? undefined : 'row' }, cell)))))))
}

function safe({ cloud, folders, out }) {
  if (out) return [make('p', { class: 'big bad' }, 'Taken out'), make('p', {}, 'This machine is not one of the cloud any more.')]
  if (!cloud || !folders.length) {
    return [make('p', { class: 'big' }, 'Nothing yet'), make('p', {}, 'Choose a folder that is to be kept safe.'), copy('bevy add ~/Documents')]
  }
  const enough = cloud.copies >= cloud.want && cloud.copies > 1
  return [
    make('p', { class: `big ${enough ? 'good' : 'warn'}` }, `${cloud.copies} of ${Math.max(cloud.want, 2)}`),
    make('p', {}, enough ? 'Losing one machine loses nothing.' : 'Only this machine has everything. Add a second one.'),
    cloud.newest && make('p', { class: 'soft' }, 'newest ', when(cloud.newest)),
    !enough && copy('bevy join'),
  ]
}

const severities = { info: ['note', 'soft'], warning: ['warning', 'warn'], problem: ['problem', 'bad'] }

function notices(list) {
  if (!list.length) return make('p', { class: 'soft' }, 'Nothing needs you.')
  return make('ul', {}, list.map(n => {
    const [word, look] = severities[n.severity] ?? severities.info
    return make('li', {}, make('p', {}, make('strong', { class: look }, word), ' ', n.text),
      n.fix && (/^bevy [^,]*$/.test(n.fix) ? copy(n.fix) : make('p', { class: 'soft' }, `try: ${n.fix}`)))
  }))
}

// progress is a bar of what is here, if more is on its way.
function progress({ name, state, bytes, missingBytes, sparse }) {
  if (state !== 'syncing' || !missingBytes || sparse) return ''
  const here = 1 - missingBytes / bytes
  return make('progress', { max: 1, value: here, 'aria-label': `${name}: ${Math.floor(100 * here)} %` })
}

function folders(list) {
  if (!list.length) return [make('p', { class: 'soft' }, 'No folder is kept safe yet.'), copy('bevy add ~/Documents')]
  return [table([['Folder'], ['State'], ['Copies', 'n'], ['Files', 'n opt'], ['Size', 'n'], ['Changed', 'opt']], list.map(f => [
    [make('a', { href: `/d/${encodeURIComponent(f.name)}/` }, f.name), f.path && f.path !== f.name ? make('div', { class: 'soft path' }, f.path) : ''],
    [make('span', { class: f.state === 'safe' ? 'good' : 'warn' }, f.state), f.why ? make('div', { class: 'soft' }, f.why) : '', progress(f)],
    `${f.copies}`, f.files.toLocaleString('en'), size(f.bytes), f.changed ? when(f.changed) : '',
  ])), copy('bevy ls'), copy('bevy add ~/Pictures')]
}

function machines(list) {
  if (list.length < 2) return [make('p', { class: 'soft' }, 'Only this machine. On a second one, bevy keeps a copy of everything.'), copy('bevy join')]
  const speed = n => n ? `${size(Math.round(n))}/s` : '0'
  return [table([['Machine'], ['State'], ['Path'], ['RTT', 'n opt'], ['Up / down', 'n opt'], ['Holds', 'n'], ['Seen', 'opt']], list.map(m => [
    m.name, make('span', { class: m.state === 'active' || m.this ? 'good' : 'soft' }, m.this ? 'this one' : m.state),
    [m.path ?? '', m.why ? make('div', { class: 'soft' }, m.why) : ''], m.rttMs ? `${Math.max(1, Math.round(m.rttMs))} ms` : '',
    m.this ? '' : `${speed(m.upBytesPerSecond)} / ${speed(m.downBytesPerSecond)}`, m.holdsBytes ? size(m.holdsBytes) : '',
    m.seen && !m.this ? when(m.seen) : '',
  ])), copy('bevy join')]
}

function recent(list) {
  if (!list.length) return make('p', { class: 'soft' }, 'Nothing has happened yet.')
  return make('ul', {}, list.map(e => make('li', {}, make('p', {}, e.data?.text ?? e.kind), make('p', { class: 'soft' }, when(e.time)))))
}

function node({ node, process, services, busy, idleExit, paths }) {
  const uses = u => [u.goroutines ? many(u.goroutines, 'goroutine') : '', u.memory ? size(u.memory) : '', u.bytesIn ? `${size(u.bytesIn)} in` : '', u.bytesOut ? `${size(u.bytesOut)} out` : '']
    .filter(Boolean).join(', ')
  return [
    make('p', {}, `bevy ${node.version}, started `, when(node.since)),
    make('p', { class: 'soft' }, `uses ${size(process.memory || process.heap || 0)} of memory, ${(process.cpuSeconds ?? 0).toFixed(1)} s of processor so far`),
    idleExit && make('p', { class: 'soft' }, `ends after ${idleExit} with nothing to do, and comes back when asked`),
    make('details', {}, make('summary', {}, 'Parts and places'),
      services.length > 0 && table([['Part'], ['State'], ['Uses']], services.map(s => [s.name, s.state + (s.restarts ? `, started again ${many(s.restarts, 'time')}` : ''), uses(s.usage)])),
      busy.length > 0 && make('p', { class: 'soft' }, `busy: ${busy.map(b => `${b.why} (${b.count})`).join(', ')}`),
      make('p', { class: 'soft' }, 'data ', make('code', {}, paths.data))),
    copy('bevy status'),
  ]
}

function show(status) {
  const worst = status.notices.find(n => n.severity !== 'info')
  const name = status.cloud?.name ?? 'Bevy'
  $('name').textContent = name
  document.title = `${worst ? '! ' : ''}${name}`
  const fine = status.folders.length ? 'Everything is all right.' : 'The node runs. Nothing is kept safe yet.'
  tell(worst ? `${many(status.notices.length, 'notice')}: ${worst.text}` : fine)
  draw('safe', { cloud: status.cloud, folders: status.folders.map(f => f.id), out: status.machines.some(m => m.this && m.state === 'revoked') }, safe)
  draw('notices', status.notices, notices)
  draw('folders', status.folders, folders)
  draw('machines', status.machines, machines)
  draw('recent', status.recent, recent)
  const { node: n, process, services, busy, idleExit, paths } = status
  const open = $('node').querySelector('details')?.open
  draw('node', { node: n, process, services, busy: busy.filter(b => b.why !== 'requests'), idleExit, paths }, node)
  if (open) $('node').querySelector('details').open = true
  $('home').hidden = $('out').hidden = false
  $('sign').hidden = true
}

function tell(text) {
  if ($('state').textContent !== text) $('state').textContent = text // else it is read out again
}

function signedOut(why) {
  $('home').hidden = $('out').hidden = true
  $('sign').hidden = false
  $('sign-why').textContent = why
  $('sign-do').replaceChildren(copy('bevy up'))
  tell('Nobody has signed in.')
}

// Signing in: the token of the link is used up, and taken out of the address.

async function signIn() {
  const token = new URLSearchParams(location.hash.slice(1)).get('t')
  if (!token) return
  history.replaceState(null, '', '/')
  const name = /(Firefox|Edg|Chrome|Safari)/.exec(navigator.userAgent)?.[1] ?? 'browser'
  try {
    const made = await ask('POST', '/sessions', { token, name: `${name} on ${navigator.platform || 'a machine'}` })
    localStorage.setItem('bevy-key', made.key)
  } catch (e) {
    if (!key()) throw e // who reloads the page has signed in already
  }
}

$('out').addEventListener('click', async () => {
  try {
    await ask('DELETE', '/sessions/current')
  } catch { /* it had ended */ }
  localStorage.removeItem('bevy-key')
  rest()
  signedOut('You have signed out.')
})

// Following what happens.

let resting, last, asked
const pause = ms => new Promise(done => setTimeout(done, ms))

async function refresh() { show(await ask('GET', '/status')) }

// soon asks again, once for many events.
function soon() {
  asked ??= setTimeout(async () => {
    asked = undefined
    try {
      await refresh()
    } catch (e) {
      if (e.status === 401) signedOut('The session has ended.')
    }
  }, 200)
}

async function follow(signal) {
  const answer = await ask('GET', '/events', undefined, { raw: true, signal, headers: last ? { 'Last-Event-ID': last } : {} })
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  for (let text = ''; ;) {
    const { value, done } = await reader.read()
    if (done) return
    text += value
    for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
      const id = /^id: (.*)$/m.exec(text.slice(0, end))
      if (!id) continue // a sign of life
      last = id[1]
      soon()
    }
  }
}

function rest() {
  resting?.abort()
  resting = undefined
}

async function live() {
  rest()
  const { signal } = resting = new AbortController()
  for (let wait = 250; !signal.aborted; wait = Math.min(2 * wait, 10000)) {
    try {
      await refresh()
      wait = 250
      await follow(signal)
    } catch (e) {
      if (signal.aborted) return
      if (e.status === 401) return signedOut(key() ? 'The session has ended.' : 'This page shows your cloud to you only.')
      tell(e.message && e.status ? e.message : 'The node does not answer; trying again.')
    }
    await pause(wait)
  }
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden) rest()
  else if ($('sign').hidden) live()
})

setInterval(() => {
  if (document.hidden) return
  for (const t of document.querySelectorAll('time')) t.textContent = ago(t.dateTime)
}, 5000)

try {
  await signIn()
  if (!document.hidden) live()
} catch (e) {
  signedOut(`${e.message}: ${e.cause ?? ''}`)
}
