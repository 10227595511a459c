"""The workstation: data, training, evaluation, export; `pip install 'medimg-edge[export]'`."""
