mesh "everything" {
  level   = "low"
  name    = "nxx"
  clever  = "..."
  timeout = "1m"
  ports   = [80]
  # text    = "a|b"
  # number  = 0.5
  # sizes   = { name = "1KiB" }
  # socket  = "unix:///run/a.sock"
  # files   = ["/path/to/file"]
  # server  = "localhost:80"
  # token   = "..."
  one {
    on = true
    # deep {
    #   a        = 1
    #   long_one = 7
    # }
  }
  # empty {}
}
