# For up.sh and down.sh: is the process of a pid file there, under this name?
# Asked of ps, not by a signal: where nobody reaps them, ended daemons stay as zombies, which take signals.
alive() {
    local told
    [ -s "$1" ] || return 1
    told=$(ps -o stat=,comm= -p "$(cat "$1" 2>/dev/null)" 2>/dev/null) || return 1
    [[ $told != Z* && $told == *" $2" ]]
}
