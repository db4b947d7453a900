'use strict'

// Makes the store that replicate.js serves beforehand. Not timed.

process.argv.push('make=1')
require('./replicate')
