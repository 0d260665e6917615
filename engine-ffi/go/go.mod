module github.com/oncekey/oncekey/engine-ffi/go

go 1.24
