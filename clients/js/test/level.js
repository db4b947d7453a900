'use strict'

// abstract-level's own test-suite, against a door that has a fresh database at each path:
//
//	node test/level.js ws://127.0.0.1:4234/ TOKEN

const test = require('tape')
const suite = require('abstract-level/test')
const { BevyLevel } = require('bevy-client/level')

const [url, token] = process.argv.slice(2)
let databases = 0

suite({
  test,
  factory: (options) => new BevyLevel(url + databases++, { ...options, token })
})

// Some tests leave their database open, which would keep the process.
test.onFinish(() => process.exit())
