'use strict'

// An abstract-level database that lives behind a Bevy door. What goes over the wire is described in
// docs/formats/level-door.md.

const { AbstractLevel, AbstractIterator, AbstractSnapshot } = require('abstract-level')
const ModuleError = require('module-error')
const { Buffer } = require('buffer')
const WebSocket = globalThis.WebSocket ?? require('ws')

const version = 1
const page = 100 // how many entries next() fetches at once

const noop = () => {}

// A key or a value is a string if it is text, and otherwise an object with base64.
const pack = (x) => typeof x === 'string' ? x : { base64: bytes(x).toString('base64') }
const bytes = (view) => Buffer.from(view.buffer, view.byteOffset, view.byteLength)

function unpack (x, format) {
  if (x == null) return undefined
  if (typeof x === 'string') return format === 'utf8' ? x : Buffer.from(x)
  const b = Buffer.from(x.base64, 'base64')
  return format === 'utf8' ? b.toString() : b
}

// range picks what a request says of a range.
function range (options) {
  const r = { reverse: options.reverse }
  for (const k of ['gt', 'gte', 'lt', 'lte']) {
    if (options[k] !== undefined) r[k] = pack(options[k])
  }
  return r
}

// A Door sends requests and gives each its reply.
class Door {
  #socket
  #last = 0
  #waiting = new Map()
  #lost = null
  #closed
  #maxMessage = Infinity

  // open connects and says hello.
  static async open (url, token) {
    const door = new Door()
    const socket = door.#socket = new WebSocket(url, ['bevy-level', 'bevy-token.' + token])
    socket.onmessage = (event) => door.#settle(JSON.parse(event.data))
    door.#closed = new Promise((resolve) => {
      // Not all that have an error say that they are closed, too.
      socket.onclose = socket.onerror = (event) => {
        door.#lose(event.reason || event.message || 'the connection was lost')
        resolve()
      }
    })
    await new Promise((resolve, reject) => {
      socket.onopen = resolve
      door.#closed.then(() => reject(door.#lost))
    })
    try {
      door.#maxMessage = (await door.request({ op: 'hello', version })).maxMessage
    } catch (err) {
      socket.close()
      throw err
    }
    return door
  }

  // request returns a promise of the reply, which has the number of the request as its id. Requests are done in the
  // order in which they are made.
  request (message) {
    const id = ++this.#last
    const promise = new Promise((resolve, reject) => {
      if (this.#lost !== null) return reject(this.#lost)
      const text = JSON.stringify({ id, ...message })
      if (text.length * 3 > this.#maxMessage && Buffer.byteLength(text) > this.#maxMessage) {
        const what = `${message.op} takes more than the ${this.#maxMessage} bytes that a message may have`
        return reject(new ModuleError(what, { code: 'LEVEL_NOT_SUPPORTED' }))
      }
      this.#waiting.set(id, { resolve, reject })
      this.#socket.send(text)
    })
    promise.id = id
    return promise
  }

  #settle ({ id, error, ...reply }) {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (error === undefined) waiting?.resolve(reply)
    else waiting?.reject(new ModuleError(error.message, { code: error.code }))
  }

  #lose (reason) {
    this.#lost ??= new ModuleError(reason, { code: 'LEVEL_CONNECTION_LOST' })
    for (const { reject } of this.#waiting.values()) reject(this.#lost)
    this.#waiting.clear()
  }

  // close ends the connection, after all that was asked for.
  async close () {
    await this.request({ op: 'hello', version }).catch(noop)
    this.#socket.close()
    await this.#closed
  }
}

class BevyLevel extends AbstractLevel {
  #url
  #token
  #door = null

  // The url is that of the door, such as ws://localhost:4234/, and options.token what it lets in.
  constructor (url, { token, ...options } = {}) {
    super({
      encodings: { utf8: true, view: true },
      seek: true,
      has: true,
      getSync: false,
      implicitSnapshots: true,
      explicitSnapshots: true
    }, options)
    this.#url = url
    this.#token = token
  }

  get type () {
    return 'bevy-level'
  }

  async _open () {
    this.#door = await Door.open(this.#url, this.#token)
  }

  async _close () {
    await this.#door.close()
  }

  // ask makes a request of what there is in a snapshot, if there is one, or now.
  async #ask (message, snapshot) {
    const reply = this.#door.request({ ...message, snapshot: snapshot?.id })
    reply.catch(noop)
    await snapshot?.opened // says why there is none
    return reply
  }

  async _get (key, { snapshot, valueEncoding }) {
    const { value } = await this.#ask({ op: 'get', key: pack(key) }, snapshot)
    return unpack(value, valueEncoding)
  }

  async _getMany (keys, { snapshot, valueEncoding }) {
    const found = []
    while (found.length < keys.length) { // a reply has no more values than are good for its size
      const { values } = await this.#ask({ op: 'getMany', keys: keys.slice(found.length).map(pack) }, snapshot)
      for (const value of values) found.push(unpack(value, valueEncoding))
    }
    return found
  }

  async _has (key, options) {
    return (await this._hasMany([key], options))[0]
  }

  async _hasMany (keys, { snapshot }) {
    return (await this.#ask({ op: 'hasMany', keys: keys.map(pack) }, snapshot)).has
  }

  async _put (key, value) {
    await this.#ask({ op: 'put', key: pack(key), value: pack(value) })
  }

  async _del (key) {
    await this.#ask({ op: 'del', key: pack(key) })
  }

  async _batch (operations) {
    const changes = operations.map(({ type, key, value }) => {
      return { type, key: pack(key), value: type === 'put' ? pack(value) : undefined }
    })
    await this.#ask({ op: 'batch', changes })
  }

  async _clear (options) {
    await this.#ask({ op: 'clear', ...range(options), limit: options.limit }, options.snapshot)
  }

  _iterator (options) {
    return new Iterator(this, this.#door, options)
  }

  _snapshot (options) {
    return new Snapshot(this.#door, options)
  }
}

// A handle is of something that the door keeps open for a connection: its number is that of the request for it.
function handle (door, message) {
  const opened = door.request(message)
  opened.catch(noop) // who uses it is told
  return opened
}

class Snapshot extends AbstractSnapshot {
  #door

  constructor (door, options) {
    super(options)
    this.#door = door
    this.opened = handle(door, { op: 'snapshot' })
    this.id = this.opened.id
  }

  async _close () {
    this.#door.request({ op: 'close', snapshot: this.id }).catch(noop) // it ends with the connection, too
  }
}

class Iterator extends AbstractIterator {
  #door
  #opened
  #id
  #formats
  #entries = [] // that were fetched and not yet returned
  #ended = false // there is no more to fetch
  #target // to seek before the next fetch

  constructor (db, door, options) {
    super(db, options)
    this.#door = door
    this.#formats = [options.keyEncoding, options.valueEncoding]
    // The limit is kept by abstract-level: what was fetched and not returned doesn't count.
    const only = !options.values ? 'keys' : !options.keys ? 'values' : undefined
    const opened = handle(door, { op: 'iterator', ...range(options), only, snapshot: options.snapshot?.id })
    this.#id = opened.id
    this.#opened = Promise.all([options.snapshot?.opened, opened])
    this.#opened.catch(noop)
  }

  async #fetch (size) {
    if (this.#ended) return
    const next = this.#door.request({ op: 'next', iterator: this.#id, size, seek: this.#target })
    next.catch(noop)
    this.#target = undefined
    await this.#opened // says why there is none
    const { keys, values, end } = await next
    this.#ended = end === true
    const [keyFormat, valueFormat] = this.#formats
    const length = (keys ?? values).length
    for (let i = 0; i < length; i++) {
      this.#entries.push([unpack(keys?.[i], keyFormat), unpack(values?.[i], valueFormat)])
    }
    this.#entries.reverse() // so that the first is popped first
  }

  async _next () {
    if (this.#entries.length === 0) await this.#fetch(Math.min(page, this.limit - this.count))
    return this.#entries.pop()
  }

  async _nextv (size) {
    if (this.#entries.length === 0) await this.#fetch(size)
    return this.#entries.splice(-size).reverse()
  }

  _seek (target) {
    this.#target = pack(target)
    this.#entries = []
    this.#ended = false
  }

  async _close () {
    this.#door.request({ op: 'close', iterator: this.#id }).catch(noop)
  }
}

exports.BevyLevel = BevyLevel
