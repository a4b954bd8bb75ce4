"""What a shell needs to complete the command: a function of bash, which zsh takes too."""

from collections.abc import Mapping, Sequence

from jaxdiff.base import shipped

_SCRIPT = """if [ -n "${{ZSH_VERSION-}}" ]; then  # as it comes, it completes nothing
    autoload -Uz compinit bashcompinit
    type compdef > /dev/null || compinit -i -D
    bashcompinit
fi
_jaxdiff() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words= file
    case $before in
        --config | --data) words="{configs}" ;;
        --workdir | --classifier | --judge | publish) ;;
        *)  case ${{COMP_WORDS[1]}} in
{cases}
                *) words="{commands} --help --version" ;;
            esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    while IFS= read -r file; do  # names of files are text, and never code
        case $file in ("$word"*) printf -v file %q "$file"; COMPREPLY+=("$file") ;; esac
    done < <(case $before in
        (--config | --data) compgen -G '*.py'; compgen -G 'configs/*.py' ;;
        (--workdir | --classifier | --judge | publish) compgen -G 'runs/*' ;;
    esac)
}}
complete -o default -F _jaxdiff jaxdiff"""


def script(flags: Mapping[str, Sequence[str]]) -> str:
    """For commands and the flags of each."""
    cases = "\n".join(f'                {name}) words="{" ".join(each)}" ;;' for name, each in flags.items())
    return _SCRIPT.format(configs=" ".join(shipped.names()), cases=cases, commands=" ".join(flags))
