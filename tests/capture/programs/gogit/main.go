package main

import (
	"os"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/storage/memory"
)

func main() {
	who := &http.BasicAuth{Username: "jane", Password: "secret"}
	repo, err := git.Clone(memory.NewStorage(), nil, &git.CloneOptions{URL: os.Args[1], Auth: who})
	if err != nil {
		panic(err)
	}
	if err := repo.Push(&git.PushOptions{Auth: who, RefSpecs: []config.RefSpec{"refs/heads/main:refs/heads/go"}}); err != nil {
		panic(err)
	}
}
