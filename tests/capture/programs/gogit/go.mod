module gogit

require github.com/go-git/go-git/v5 v5.4.2
