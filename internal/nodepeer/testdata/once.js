'use strict'

// A one-shot script: prints its arguments as JSON, or fails as it is told.

const args = process.argv.slice(2)
if (args[0] === 'fail') {
  console.error('it went wrong')
  process.exit(1)
}
if (args[0] === 'forever') setInterval(() => {}, 1000)
else console.log(args[0] === 'text' ? 'some text' : JSON.stringify(args))
