// Package storagetest holds what every storage engine is tested with: Run, the
// suite that each passes, and Faulty, a disk that crashes and fails on demand.
//
//	func TestEngine(t *testing.T) {
//		storagetest.Run(t, func(t *testing.T) (storage.Engine, func() storage.Engine) {
//			return storage.NewMemory(), nil
//		})
//	}
package storagetest
