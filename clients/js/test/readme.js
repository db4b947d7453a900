'use strict'

// Runs the example of the README against a door, and compares what it prints with what its comments say:
//
//	node test/readme.js ws://127.0.0.1:4234/ TOKEN

const { readFileSync } = require('fs')
const { join } = require('path')
const { inspect } = require('util')
const assert = require('assert')

const [url, token] = process.argv.slice(2)
const AsyncFunction = (async () => {}).constructor

const readme = readFileSync(join(__dirname, '..', 'README.md'), 'utf8')
const example = /```js\n(.*?)```/s.exec(readme)[1]
const want = Array.from(example.matchAll(/console\.log.* \/\/ (.*)/g), (m) => m[1])
const code = example.replace('ws://localhost:4234/', url).replace('the door prints it', token)

const got = []
const log = (...values) => got.push(values.map((v) => typeof v === 'string' ? v : inspect(v)).join(' '))

new AsyncFunction('require', 'console', code)(require, { log }).then(() => {
  assert.deepStrictEqual(got, want)
  console.log(`the example printed ${got.length} lines`)
})
