package main

import "errors"

func wrong(*order) error { return errors.New("later") }
