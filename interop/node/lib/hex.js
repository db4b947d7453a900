'use strict'

// Binary values cross the wire to Go as lower-case hex strings.

function hex (buffer) {
  return buffer ? Buffer.from(buffer.buffer, buffer.byteOffset, buffer.byteLength).toString('hex') : null
}

function bytes (string) {
  if (string === null || string === undefined) return null
  if (typeof string !== 'string' || !/^([0-9a-f]{2})*$/i.test(string)) throw new TypeError('not a hex string: ' + string)
  return Buffer.from(string, 'hex')
}

// plain is value with every buffer in it as hex, and undefined as null: ready for JSON.
function plain (value) {
  if (value === null || value === undefined) return null
  if (value instanceof Uint8Array) return hex(value)
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]))
}

module.exports = { hex, bytes, plain }
